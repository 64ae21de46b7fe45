//! What was measured, as a table and for machines.

use std::fmt;

use serde_json::{Value, json};

/// One figure.
#[derive(Debug)]
struct Figure {
    name: String,
    /// Ours.
    value: f64,
    unit: &'static str,
    /// The limit of what is below, measured in the same run.
    raw: Option<f64>,
    aim: Option<Aim>,
}

/// What we want of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    /// At most so many times the limit.
    TimesAtMost(f64),
    /// At least this share of the limit.
    ShareAtLeast(f64),
    /// At most this, in the figure's unit.
    AtMost(f64),
}

/// All figures so far.
#[derive(Debug)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    only: Option<String>,
}

impl Report {
    /// A report of figures whose names contain `only`, where a measurement can do with some of its figures.
    pub(crate) const fn only(only: Option<String>) -> Self {
        Self { figures: Vec::new(), only }
    }

    /// Whether a figure is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// A figure and the limit below it.
    pub(crate) fn beside(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
        raw: f64,
        aim: impl Into<Option<Aim>>,
    ) {
        self.push(Figure { name: name.into(), value, unit, raw: Some(raw), aim: aim.into() });
    }

    /// A figure that has a limit of its own.
    pub(crate) fn figure(&mut self, name: impl Into<String>, unit: &'static str, value: f64, aim: Option<Aim>) {
        self.push(Figure { name: name.into(), value, unit, raw: None, aim });
    }

    /// Takes a figure, and says so to who waits for the others.
    fn push(&mut self, figure: Figure) {
        eprintln!("{}: {} {}", figure.name, short(figure.value), figure.unit);
        self.figures.push(figure);
    }

    pub(crate) fn to_json(&self) -> Value {
        let figure = |figure: &Figure| {
            json!({
                "name": figure.name,
                "unit": figure.unit,
                "value": figure.value,
                "raw": figure.raw,
                "ratio": figure.ratio(),
                "aim": figure.aim(),
                "met": figure.is_met(),
            })
        };
        self.figures.iter().map(figure).collect()
    }
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        self.raw.map(|raw| self.value / raw)
    }

    /// What we want of it, in words.
    fn aim(&self) -> Option<String> {
        self.aim.map(|aim| match aim {
            Aim::TimesAtMost(times) => format!("at most {times} times"),
            Aim::ShareAtLeast(share) => format!("at least {share}"),
            Aim::AtMost(most) => format!("at most {} {}", short(most), self.unit),
        })
    }

    fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        self.aim.map(|aim| match aim {
            Aim::TimesAtMost(times) => ratio <= times,
            Aim::ShareAtLeast(share) => ratio >= share,
            Aim::AtMost(most) => self.value <= most,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| figure | ours | limit below | ratio | aim | |\n| --- | ---: | ---: | ---: | --- | --- |"
        )?;
        for figure in &self.figures {
            let Figure { name, value, unit, raw, aim: _ } = figure;
            let raw = raw.map(|raw| format!("{} {unit}", short(raw))).unwrap_or_default();
            let ratio = figure.ratio().map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
            let aim = figure.aim().unwrap_or_default();
            let met = figure.is_met().map_or("", |met| if met { "met" } else { "not met" });
            writeln!(formatter, "| {name} | {} {unit} | {raw} | {ratio} | {aim} | {met} |", short(*value))?;
        }
        Ok(())
    }
}

/// As many digits as say something.
fn short(number: f64) -> String {
    if number < 100.0 { format!("{number:.2}") } else { format!("{number:.0}") }
}

/// The median of some measurements.
pub(crate) fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}
