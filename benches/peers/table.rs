//! What was measured, one line each, printed as it comes.

/// What is wanted of the figure, and so how it is told.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At least so many times as fast as the rival.
    Faster(f64),
    /// At least this share of the rival's speed.
    Share(f64),
    /// At most so many times the rival's time.
    AtMost(f64),
    /// How many times the rival's time it is.
    None,
}

const WIDTHS: [usize; 6] = [50, 42, 10, 10, 8, 10];

fn print(cells: [&str; 6]) {
    let [what, rival, ours, theirs, ratio, goal] = WIDTHS;
    let [a, b, c, d, e, f] = cells;
    println!("{a:<what$}{b:<rival$}{c:>ours$}{d:>theirs$}{e:>ratio$}{f:>goal$}");
}

pub fn head() {
    print(["what", "against", "residua", "that", "ratio", "goal"]);
}

/// `ours` and `theirs`: in seconds.
pub fn line(what: &str, rival: &str, ours: f64, theirs: f64, goal: Goal) {
    let (ratio, goal) = match goal {
        Goal::Faster(times) => (format!("{:.1}x", theirs / ours), format!(">= {times}x")),
        Goal::Share(share) => (format!("{:.0} %", 100.0 * theirs / ours), format!(">= {:.0} %", 100.0 * share)),
        Goal::AtMost(times) => (format!("{:.1}x", ours / theirs), format!("<= {times}x")),
        Goal::None => (format!("{:.1}x", ours / theirs), String::new()),
    };
    print([what, rival, &time(ours), &time(theirs), &ratio, &goal]);
}

fn time(seconds: f64) -> String {
    if seconds < 1e-4 { format!("{:.0} ns", 1e9 * seconds) } else { format!("{:.0} ms", 1e3 * seconds) }
}
