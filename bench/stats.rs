//! Medians and percentiles, and the tables that show them.

use std::time::{Duration, Instant};

/// Microseconds.
pub type Micros = f64;

/// Times of single deeds, in order of size.
pub struct Times(Vec<Duration>);

impl Times {
    /// Times each of so many.
    pub fn of(count: usize, deed: impl FnMut()) -> Times {
        Times::from(Times::each(count, deed).collect::<Vec<_>>())
    }

    /// Each time in turn.
    pub fn each(count: usize, mut deed: impl FnMut()) -> impl Iterator<Item = Duration> {
        (0..count).map(move |_| {
            let begun = Instant::now();
            deed();
            begun.elapsed()
        })
    }

    /// In per cent.
    pub fn percentile(&self, share: usize) -> Micros {
        self.0[(self.0.len() - 1) * share / 100].as_secs_f64() * 1e6
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Times {
        assert!(!times.is_empty(), "nothing was timed");
        times.sort();
        Times(times)
    }
}

/// The middle one, or the upper one of both.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints a Markdown table whose columns are aligned in plain text too: the first to the left, the others to the right.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let wide = |column: usize| {
        let cells = rows.iter().map(|row| row[column].as_str()).chain([head[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(wide).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(i, cell)| {
            let width = widths[i];
            if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    };
    println!("\n{title}\n\n{}", line(head.to_vec()));
    let rule = widths.iter().enumerate().map(|(i, width)| {
        let dashes = "-".repeat(width + 1);
        if i == 0 { format!("{dashes}-") } else { format!("{dashes}:") }
    });
    println!("|{}|", rule.collect::<Vec<_>>().join("|"));
    for row in rows {
        println!("{}", line(row.iter().map(String::as_str).collect()));
    }
}
