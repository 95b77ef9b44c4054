//! JSON that has one spelling (RFC 8785).
//!
//! Integers that a double does not hold, about which the RFC says nothing, keep their digits: rounding them would change the
//! document.

use std::io::{self, Write as _};

use serde::Serialize;
use serde_json::{Map, Number, Value};

/// The canonical JSON of a value.
///
/// # Errors
/// When JSON cannot hold it: a map whose keys are no text, or a `Serialize` that fails.
pub fn canonical_json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(1024);
    write_value(&mut out, &serde_json::to_value(value)?)?;
    Ok(out)
}

fn write_value(out: &mut Vec<u8>, value: &Value) -> serde_json::Result<()> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => serde_json::to_writer(out, value),
        Value::Number(number) => write_number(out, number).map_err(serde_json::Error::io),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_value(out, item)?;
            }
            out.push(b']');
            Ok(())
        }
        Value::Object(members) => write_object(out, members),
    }
}

fn write_object(out: &mut Vec<u8>, members: &Map<String, Value>) -> serde_json::Result<()> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    out.push(b'{');
    for (at, (name, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name)?;
        out.push(b':');
        write_value(out, value)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_number(out: &mut Vec<u8>, number: &Number) -> io::Result<()> {
    if let Some(integer) = number.as_i64() {
        return out.write_all(itoa::Buffer::new().format(integer).as_bytes());
    }
    if let Some(integer) = number.as_u64() {
        return out.write_all(itoa::Buffer::new().format(integer).as_bytes());
    }
    let double = number.as_f64().filter(|double| double.is_finite());
    let double = double.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a number that JSON cannot hold"))?;
    out.write_all(ryu_js::Buffer::new().format_finite(double).as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::canonical_json;

    /// Largest integer up to which a double holds them all.
    const EXACT: i64 = 1 << 53;

    fn text(value: &Value) -> String {
        String::from_utf8(canonical_json(value).expect("JSON")).expect("text")
    }

    /// LO-ART-01: the RFC's own examples, and integers that it leaves open.
    #[test]
    fn examples_of_the_rfc() {
        let cases = [
            (r#"{"b":1,"a":[ true , null ]}"#, r#"{"a":[true,null],"b":1}"#),
            (
                r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
                "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin"}"#,
                "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"\u{f6}\":\"Latin\",\
                 \"\u{20ac}\":\"Euro Sign\",\"\u{1f600}\":\"Emoji: Grinning Face\",\
                 \"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}",
            ),
            (
                r#"[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001,-0.0]"#,
                "[333333333.3333333,1e+30,4.5,0.002,1e-27,0]",
            ),
            (r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#, "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""),
            (
                "[9223372036854775807,-9223372036854775808,18446744073709551615]",
                "[9223372036854775807,-9223372036854775808,18446744073709551615]",
            ),
            ("[1.0,1e3,1e21,123456789012345680000]", "[1,1000,1e+21,123456789012345680000]"),
        ];
        for (given, expected) in cases {
            let value: Value = serde_json::from_str(given).expect(given);
            assert_eq!(text(&value), expected);
        }
    }

    fn number() -> impl Strategy<Value = Value> {
        let double = any::<f64>().prop_filter("JSON has finite numbers", |double| double.is_finite());
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            double.prop_map(Value::from)
        ]
    }

    fn value(number: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same members with another spelling: spaces, and the names backwards.
    fn respelt(value: &Value) -> String {
        match value {
            Value::Array(items) => format!("[ {} ]", items.iter().map(respelt).collect::<Vec<_>>().join(" ,\n")),
            Value::Object(members) => {
                let spelt = members.iter().rev().map(|(name, value)| format!("{} : {}", json!(name), respelt(value)));
                format!("{{\t{}}}", spelt.collect::<Vec<_>>().join(" , "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        /// LO-ART-01: neither the order of members nor spaces nor another round through a parser change the canonical form.
        #[test]
        fn every_spelling_has_one_canonical_form(value in value(number())) {
            let once = text(&value);
            let again: Value = serde_json::from_str(&once).expect("it is JSON");
            prop_assert_eq!(&text(&again), &once);
            let respelt: Value = serde_json::from_str(&respelt(&value)).expect("it is JSON");
            prop_assert_eq!(text(&respelt), once);
        }

        /// Another implementation of the RFC agrees wherever the RFC says something.
        #[test]
        fn another_implementation_agrees(value in value(prop_oneof![
            (-EXACT..=EXACT).prop_map(Value::from),
            any::<f64>().prop_filter("finite", |double| double.is_finite()).prop_map(Value::from),
        ])) {
            prop_assert_eq!(text(&value), serde_json_canonicalizer::to_string(&value).expect("JSON"));
        }
    }
}
