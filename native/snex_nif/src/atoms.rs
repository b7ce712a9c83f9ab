//! Atoms that cross the border.

rustler::atoms! {
    // what a request becomes
    ok,
    full,
    long,
    starting,
    noproc,
    down,
    bad_key,

    // messages to callers and to the processes of an interpreter
    result,
    error,
    writable,
    snex_started,
    snex_ready,
    snex_ended,
    snex_call,
    snex_output,
    call,
    cast,
    send,
    stdout,
    stderr,

    // how an interpreter went down
    stopped,
    ended,
    owner_gone,
    not_started,
    exited,
    broken,
    warden_lost,

    // terms with a meaning of their own in Python
    nil,
    true_ = "true",
    false_ = "false",
    __struct__,
    map,
    inf,
    negative_inf = "-inf",
    nan,
    map_set = "Elixir.MapSet",
    serde_binary = "Elixir.Snex.Serde.Binary",
    serde_float = "Elixir.Snex.Serde.Float",
    serde_term = "Elixir.Snex.Serde.Term",
    serde_object = "Elixir.Snex.Serde.Object",
    data,
    as_ = "as",
    value,
    term,
    module,
    class,
    args,

    // encoding options
    str,
    bytes,
    bytearray,
    memoryview,
    set,
    frozenset,
    atom,
    distinct_atom,
}
