//! Structs that have a counterpart in Python's standard library, with `structs_as: :native`.
//!
//! Python's own constructors refuse some values that they cannot represent. For the others, a refusal is written here
//! in the place of the value. In both cases, Python's error says where that is; see `_etf/loading.py`.

use super::structs::field;
use super::{Walk, WalkError};
use crate::atoms;
use rustler::{Atom, Binary, Term, TermType};
use snex_core::pickle::{BinaryAs, Global};

const MICROSECONDS_A_DAY: i128 = 24 * 60 * 60 * 1_000_000;

/// Ports that `URI.to_string/1` leaves out.
const DEFAULT_PORTS: [(&[u8], i64); 8] = [
    (b"ftp", 21),
    (b"sftp", 22),
    (b"tftp", 69),
    (b"http", 80),
    (b"https", 443),
    (b"ldap", 389),
    (b"ws", 80),
    (b"wss", 443),
];

impl<'a> Walk<'a> {
    /// Writes a struct that has no encoder of the user as its counterpart. Returns false if there is none.
    pub(super) fn native(&mut self, term: Term<'a>, module: Atom) -> Result<bool, WalkError<'a>> {
        if module == atoms::date_struct() {
            self.date(term)?;
        } else if module == atoms::time_struct() {
            self.time(term)?;
        } else if module == atoms::naive_datetime_struct() {
            self.naive_datetime(term)?;
        } else if module == atoms::datetime_struct() {
            self.datetime(term)?;
        } else if module == atoms::duration_struct() {
            self.duration(term)?;
        } else if module == atoms::decimal_struct() {
            self.decimal(term)?;
        } else if module == atoms::range_struct() {
            self.range(term)?;
        } else if module == atoms::uri_struct() {
            self.uri(term)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn date(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let date = ints(term, [atoms::year(), atoms::month(), atoms::day()])?;
        if !is_iso(term)? {
            return self.refuse("its calendar is not Calendar.ISO: see Date.convert/2");
        }
        self.made(Global::Date, &date)
    }

    fn time(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let [hour, minute, second] = ints(term, [atoms::hour(), atoms::minute(), atoms::second()])?;
        let microsecond = microsecond(term)?;
        if !is_iso(term)? {
            return self.refuse("its calendar is not Calendar.ISO: see Time.convert/2");
        }
        self.made(Global::Time, &[hour, minute, second, microsecond])
    }

    fn naive_datetime(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let numbers = date_and_time(term)?;
        if !is_iso(term)? {
            return self.refuse("its calendar is not Calendar.ISO: see NaiveDateTime.convert/2");
        }
        self.made(Global::DateTime, &numbers)
    }

    fn datetime(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let numbers = date_and_time(term)?;
        let [utc, std] = ints(term, [atoms::utc_offset(), atoms::std_offset()])?;
        let zone = binary(field(term, atoms::time_zone())?).ok_or(WalkError::BadTerm(term))?;
        if !is_iso(term)? {
            return self.refuse("its calendar is not Calendar.ISO: see DateTime.convert/2");
        }
        self.pickle.global(Global::Zoned);
        self.pickle.arguments_begin();
        numbers.iter().for_each(|number| self.pickle.int(*number));
        self.pickle.binary(zone.as_slice(), BinaryAs::Str);
        self.pickle.int(utc.saturating_add(std));
        self.pickle.arguments_end();
        Ok(())
    }

    fn duration(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let [year, month] = ints(term, [atoms::year(), atoms::month()])?;
        if year != 0 || month != 0 {
            return self.refuse(
                "a datetime.timedelta has no years and months, whose lengths differ: add the duration to a date in Elixir, or \
                 convert it to days",
            );
        }
        let units = [atoms::week(), atoms::day(), atoms::hour(), atoms::minute(), atoms::second()];
        let seconds = [7 * 86_400, 86_400, 3_600, 60, 1];
        let whole: i128 = std::iter::zip(ints(term, units)?, seconds)
            .map(|(count, seconds)| i128::from(count) * seconds * 1_000_000)
            .sum();
        let total = whole + i128::from(microsecond(term)?);
        let Ok(days) = i64::try_from(total.div_euclid(MICROSECONDS_A_DAY)) else {
            return self.refuse("it is longer than a datetime.timedelta can be");
        };
        let rest = total.rem_euclid(MICROSECONDS_A_DAY) as i64;
        self.made(Global::Timedelta, &[days, rest / 1_000_000, rest % 1_000_000])
    }

    fn decimal(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let [sign, exponent] = ints(term, [atoms::sign(), atoms::exp()])?;
        let coefficient = field(term, atoms::coef())?;
        let sign = if sign < 0 { "-" } else { "" };
        let text = if coefficient.get_type() == TermType::Atom {
            let name = Atom::from_term(coefficient).map_err(|_| WalkError::BadTerm(term))?;
            let special = if name == atoms::not_a_number() {
                "NaN"
            } else if name == atoms::inf() {
                "Infinity"
            } else {
                return Err(WalkError::BadTerm(term));
            };
            format!("{sign}{special}")
        } else if let Ok(coefficient) = coefficient.decode::<u64>() {
            format!("{sign}{coefficient}E{exponent}")
        } else if coefficient.get_type() == TermType::Integer {
            self.pickle.global(Global::Number);
            self.pickle.arguments_begin();
            self.pickle.str(sign);
            self.integer(coefficient)?;
            self.pickle.int(exponent);
            self.pickle.arguments_end();
            return Ok(());
        } else {
            return Err(WalkError::BadTerm(term));
        };
        self.pickle.call(Global::Decimal, |pickle| pickle.str(&text));
        Ok(())
    }

    fn range(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        self.pickle.global(Global::Inclusive);
        self.pickle.arguments_begin();
        for name in [atoms::first(), atoms::last(), atoms::step()] {
            let number = field(term, name)?;
            if number.get_type() != TermType::Integer {
                return Err(WalkError::BadTerm(term));
            }
            self.integer(number)?;
        }
        self.pickle.arguments_end();
        Ok(())
    }

    /// Writes what `URI.to_string/1` returns.
    fn uri(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let part = |name| {
            let part = field(term, name)?;
            if is_nil(part) { Ok(None) } else { binary(part).map(Some).ok_or(WalkError::BadTerm(term)) }
        };
        let (scheme, host, path) = (part(atoms::scheme())?, part(atoms::host())?, part(atoms::path())?);
        let mut text: Vec<u8> = Vec::new();
        let mut add = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| text.extend_from_slice(piece));
        if let Some(scheme) = &scheme {
            add(&[scheme.as_slice(), b":"]);
        }
        if let Some(host) = &host {
            if path.as_ref().is_some_and(|path| path.first().is_some_and(|first| *first != b'/')) {
                return self.refuse("the path of a URI with a host has to begin with a slash");
            }
            add(&[b"//"]);
            if let Some(userinfo) = part(atoms::userinfo())? {
                add(&[userinfo.as_slice(), b"@"]);
            }
            if host.contains(&b':') {
                add(&[b"[", host.as_slice(), b"]"])
            } else {
                add(&[host.as_slice()])
            }
            let port = field(term, atoms::port())?;
            if !is_nil(port) {
                let port: i64 = port.decode().map_err(|_| WalkError::BadTerm(term))?;
                let is_default = |scheme: &Binary<'_>| DEFAULT_PORTS.contains(&(scheme.as_slice(), port));
                if !scheme.as_ref().is_some_and(is_default) {
                    add(&[b":", port.to_string().as_bytes()]);
                }
            }
        } else if let Some(authority) = part(atoms::authority())? {
            add(&[b"//", authority.as_slice()]);
        }
        if let Some(path) = &path {
            add(&[path.as_slice()]);
        }
        for (before, name) in [(b"?", atoms::query()), (b"#", atoms::fragment())] {
            if let Some(part) = part(name)? {
                add(&[before, part.as_slice()]);
            }
        }
        self.pickle.binary(&text, BinaryAs::Str);
        Ok(())
    }

    /// Calls a constructor with numbers.
    fn made(&mut self, class: Global, numbers: &[i64]) -> Result<(), WalkError<'a>> {
        self.pickle.global(class);
        self.pickle.arguments_begin();
        numbers.iter().for_each(|number| self.pickle.int(*number));
        self.pickle.arguments_end();
        Ok(())
    }

    /// Writes a refusal: Python raises an error that says why there is no value in this place.
    pub(super) fn refuse(&mut self, why: &str) -> Result<(), WalkError<'a>> {
        self.pickle.call(Global::Refuse, |pickle| pickle.str(why));
        Ok(())
    }
}

fn ints<'a, const N: usize>(term: Term<'a>, names: [Atom; N]) -> Result<[i64; N], WalkError<'a>> {
    let mut numbers = [0; N];
    for (number, name) in std::iter::zip(&mut numbers, names) {
        *number = field(term, name)?.decode().map_err(|_| WalkError::BadTerm(term))?;
    }
    Ok(numbers)
}

fn microsecond<'a>(term: Term<'a>) -> Result<i64, WalkError<'a>> {
    let (number, _precision): (i64, i64) =
        field(term, atoms::microsecond())?.decode().map_err(|_| WalkError::BadTerm(term))?;
    Ok(number)
}

fn date_and_time<'a>(term: Term<'a>) -> Result<[i64; 7], WalkError<'a>> {
    let [year, month, day] = ints(term, [atoms::year(), atoms::month(), atoms::day()])?;
    let [hour, minute, second] = ints(term, [atoms::hour(), atoms::minute(), atoms::second()])?;
    Ok([year, month, day, hour, minute, second, microsecond(term)?])
}

fn is_iso<'a>(term: Term<'a>) -> Result<bool, WalkError<'a>> {
    Ok(atoms::calendar_iso() == field(term, atoms::calendar())?)
}

fn is_nil(term: Term<'_>) -> bool {
    Atom::from_term(term).is_ok_and(|atom| atom == atoms::nil())
}

fn binary(term: Term<'_>) -> Option<Binary<'_>> {
    Binary::from_term(term).ok()
}
