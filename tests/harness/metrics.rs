//! Numbers from a metrics page in OpenMetrics text.

/// The sum of all series of `name`; 0 without one.
pub fn total(page: &str, name: &str) -> u64 {
    let series = page.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    series.filter_map(value).sum()
}

/// Of a histogram without labels: how many values lie within `bound`, and how many there are.
pub fn histogram(page: &str, name: &str, bound: &str) -> (u64, u64) {
    let start = format!("{name}_bucket{{le=\"{bound}\"}}");
    let within = page.lines().find(|line| line.starts_with(&start));
    (
        within.and_then(value).unwrap_or_default(),
        total(page, &format!("{name}_count")),
    )
}

fn value(line: &str) -> Option<u64> {
    let text = line.rsplit_once(' ')?.1;
    text.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_and_buckets_found() {
        let page = "# TYPE a counter\na_total{x=\"1\"} 3\na_total{x=\"2\"} 4\nab_total 9\nh_bucket{le=\"0.01\"} 5\nh_bucket{le=\"+Inf\"} 7\nh_count 7\n";
        assert_eq!(total(page, "a_total"), 7);
        assert_eq!(histogram(page, "h", "0.01"), (5, 7));
        assert_eq!(total(page, "none"), 0);
    }
}
