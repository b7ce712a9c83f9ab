//! The declaration of a Python and its packages, looked at before uv is started.

use crate::atoms;
use rustler::{Binary, Encoder, Env, Term};
use snex_core::project;

/// `ok`, or `{error, [{Line, Column, Message}]}`. On a dirty scheduler: the text may be of any length.
#[rustler::nif(schedule = "DirtyCpu")]
fn project_check<'a>(env: Env<'a>, toml: Binary<'a>) -> Term<'a> {
    let problems = project::check(toml.as_slice());
    if problems.is_empty() {
        return atoms::ok().encode(env);
    }
    let problems: Vec<_> =
        problems.into_iter().map(|problem| (problem.line, problem.column, problem.message)).collect();
    (atoms::error(), problems).encode(env)
}
