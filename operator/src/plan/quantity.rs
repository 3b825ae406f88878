//! Quantities of storage, as Kubernetes writes them, compared.

/// Whether one quantity is at least another. One that cannot be read is taken for larger than what is asked for: what is
/// there is not made smaller on a guess.
pub(super) fn is_at_least(there: &str, asked: &str) -> bool {
    match (bytes(there), bytes(asked)) {
        (Some(there), Some(asked)) => there >= asked,
        (None, _) => true,
        (Some(_), None) => false,
    }
}

/// The number of bytes; none for what is no quantity.
fn bytes(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let number: f64 = number.parse().ok()?;
    let (base, power) = match unit {
        "" => (1.0, 0),
        "m" => (1000.0, -1),
        "k" => (1000.0, 1),
        "M" => (1000.0, 2),
        "G" => (1000.0, 3),
        "T" => (1000.0, 4),
        "P" => (1000.0, 5),
        "E" => (1000.0, 6),
        "Ki" => (1024.0, 1),
        "Mi" => (1024.0, 2),
        "Gi" => (1024.0, 3),
        "Ti" => (1024.0, 4),
        "Pi" => (1024.0, 5),
        "Ei" => (1024.0, 6),
        exponent => (10.0, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * f64::powi(base, power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantity_is_compared_whatever_its_unit() {
        for (there, asked, is) in [
            ("1Gi", "1Gi", true),
            ("5Gi", "1Gi", true),
            ("1Gi", "5Gi", false),
            ("1G", "1Gi", false),
            ("1073741824", "1Gi", true),
            ("1.5Gi", "1536Mi", true),
            ("5e9", "4.9G", true),
            ("1Ei", "1023Pi", true),
            ("1000m", "2", false),
            ("what", "1Gi", true),
        ] {
            assert_eq!(is_at_least(there, asked), is, "{there} of {asked}");
        }
    }
}
