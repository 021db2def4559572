//! Comma-separated values (RFC 4180): lines end with CR LF, and what holds a comma, quote or line break is quoted.
//!
//! Names in packets are an attacker's to choose, and spreadsheets run what begins like a formula: such a value gets an
//! apostrophe in front, by which they take it for text.

/// Appends a line.
pub(crate) fn line<'a>(out: &mut String, values: impl IntoIterator<Item = &'a str>) {
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let formula = value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
        let value = if formula { &format!("'{value}") } else { value };
        if value.contains([',', '"', '\r', '\n']) {
            out.push('"');
            out.push_str(&value.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(value);
        }
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_come_back_as_they_were_and_formulas_do_not_run() {
        for (value, written) in [
            ("eth0", "eth0"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("@SUM(1,2)", "\"'@SUM(1,2)\""),
            ("-1", "'-1"),
            ("+1", "'+1"),
            ("\tx", "'\tx"),
        ] {
            let mut out = String::new();
            super::line(&mut out, [value, "x"]);
            assert_eq!(out, format!("{written},x\r\n"), "{value:?}");
        }
    }
}
