//! Two kinds of picture: rows of marks along an axis, and lines over the number of connections.

use super::axis::{Axis, Unit};
use super::svg::{Anchor, Canvas, GRID, INK, SOFT, Style};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 24.0;
const TITLE: Style = Style::new(18.0, INK).bold();
const SUBTITLE: Style = Style::new(13.0, SOFT);
const LABEL: Style = Style::new(13.0, INK);
const SMALL: Style = Style::new(12.0, SOFT);

/// What stands above a picture.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) legend: Vec<Key>,
}

/// One entry of a legend.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) color: &'static str,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Block,
    Dot,
    Hollow,
    Line,
    Dashes,
}

impl Head {
    /// Where it ends.
    fn height(&self) -> f64 {
        self.draw(&mut Canvas::new("", WIDTH, 0.0))
    }

    /// Draws it and says where it ends.
    fn draw(&self, canvas: &mut Canvas) -> f64 {
        canvas.text((MARGIN, 36.0), &self.title, TITLE);
        canvas.text((MARGIN, 57.0), &self.subtitle, SUBTITLE);
        if self.legend.is_empty() {
            return 72.0;
        }
        let (mut x, mut y) = (MARGIN, 82.0);
        for key in &self.legend {
            let width = 24.0 + SMALL.width(&key.text) + 20.0;
            if x + width > WIDTH - MARGIN + 20.0 && x > MARGIN {
                (x, y) = (MARGIN, y + 20.0);
            }
            key.draw(canvas, x, y);
            x += width;
        }
        y + 18.0
    }
}

impl Key {
    fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let middle = y - 4.0;
        match self.shape {
            Shape::Block => canvas.bar(x, middle - 5.0, 16.0, 10.0, self.color),
            Shape::Dot => canvas.dot((x + 9.0, middle), 5.0, self.color, false),
            Shape::Hollow => canvas.dot((x + 9.0, middle), 4.5, self.color, true),
            Shape::Line => {
                canvas.line((x, middle), (x + 18.0, middle), self.color, 2.2, false);
                canvas.dot((x + 9.0, middle), 4.0, self.color, false);
            }
            Shape::Dashes => canvas.line((x, middle), (x + 18.0, middle), self.color, 1.6, true),
        }
        canvas.text((x + 24.0, y), &self.text, SMALL);
    }
}

/// A mark in a row.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    Bar {
        from: f64,
        to: f64,
        color: &'static str,
    },
    /// A thin line behind the dots.
    Span {
        from: f64,
        to: f64,
        color: &'static str,
    },
    Dot {
        at: f64,
        color: &'static str,
        hollow: bool,
    },
}

/// A row of a picture: what it is about, its marks, and what stands behind them.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) strong: bool,
    pub(crate) marks: Vec<Mark>,
    pub(crate) note: String,
    /// More room above it: a group begins.
    pub(crate) gap: bool,
}

impl Row {
    fn ends(&self) -> impl Iterator<Item = f64> {
        self.marks.iter().flat_map(|mark| match mark {
            Mark::Bar { from, to, .. } | Mark::Span { from, to, .. } => [*from, *to],
            Mark::Dot { at, .. } => [*at, *at],
        })
    }
}

/// Rows along one axis.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) head: Head,
    pub(crate) unit: Unit,
    pub(crate) log: bool,
    /// What the axis says below.
    pub(crate) axis: String,
    pub(crate) rows: Vec<Row>,
    /// Dashed lines across all rows, with what they mean.
    pub(crate) limits: Vec<(f64, String)>,
}

impl Rows {
    const PITCH: f64 = 27.0;
    const GAP: f64 = 12.0;

    pub(crate) fn draw(&self) -> String {
        let gaps = self.rows.iter().skip(1).filter(|row| row.gap).count() as f64;
        let tall = self.rows.len() as f64 * Self::PITCH + gaps * Self::GAP;
        let limits = if self.limits.is_empty() { 0.0 } else { 18.0 };
        let height = self.head.height() + limits + tall + 64.0;
        let mut canvas = Canvas::new(&self.head.title, WIDTH, height);
        let top = self.head.draw(&mut canvas) + limits + 6.0;
        let strong = LABEL.bold();
        let widest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
        let left = MARGIN + widest(&mut self.rows.iter().map(|row| strong.width(&row.label))) + 14.0;
        let right = WIDTH - MARGIN - widest(&mut self.rows.iter().map(|row| LABEL.width(&row.note))) - 12.0;
        let values = self.rows.iter().flat_map(Row::ends).chain(self.limits.iter().map(|(value, _)| *value));
        let axis = if self.log { Axis::log(values, left, right) } else { Axis::linear(values, left, right) };
        self.grid(&mut canvas, axis, top, top + tall + 4.0);
        let mut y = top;
        for (at, row) in self.rows.iter().enumerate() {
            y += if at > 0 && row.gap { Self::GAP } else { 0.0 };
            row_marks(&mut canvas, axis, row, left, right, y + Self::PITCH / 2.0);
            y += Self::PITCH;
        }
        canvas.text((f64::midpoint(left, right), top + tall + 40.0), &self.axis, SMALL.at(Anchor::Middle));
        canvas.finish()
    }

    fn grid(&self, canvas: &mut Canvas, axis: Axis, top: f64, bottom: f64) {
        let mut free_from = f64::MIN;
        for (value, labelled) in axis.ticks() {
            let (x, text) = (axis.at(value), self.unit.show(value));
            canvas.line((x, top), (x, bottom), GRID, 1.0, false);
            let half = SMALL.width(&text) / 2.0;
            if labelled && x - half > free_from {
                canvas.text((x, bottom + 17.0), &text, SMALL.at(Anchor::Middle));
                free_from = x + half + 8.0;
            }
        }
        for (value, text) in &self.limits {
            let x = axis.at(*value);
            canvas.line((x, top - 4.0), (x, bottom), "#e11d48", 1.4, true);
            let outside = x + SMALL.width(text) / 2.0 > WIDTH - MARGIN;
            let anchor = if outside { Anchor::End } else { Anchor::Middle };
            canvas.text((x, top - 9.0), text, Style::new(12.0, "#be123c").at(anchor));
        }
    }
}

fn row_marks(canvas: &mut Canvas, axis: Axis, row: &Row, left: f64, right: f64, y: f64) {
    let style = if row.strong { LABEL.bold() } else { LABEL };
    canvas.text((left - 10.0, y + 4.5), &row.label, style.at(Anchor::End));
    for mark in &row.marks {
        match mark {
            Mark::Bar { from, to, color } => {
                let start = if *from <= 0.0 { left } else { axis.at(*from) };
                canvas.bar(start, y - 8.0, axis.at(*to) - start, 16.0, color);
            }
            Mark::Span { from, to, color } => canvas.line((axis.at(*from), y), (axis.at(*to), y), color, 3.0, false),
            Mark::Dot { at, color, hollow } => {
                canvas.dot((axis.at(*at), y), if *hollow { 4.5 } else { 5.0 }, color, *hollow);
            }
        }
    }
    canvas.text((right + 10.0, y + 4.5), &row.note, if row.strong { LABEL.bold() } else { LABEL });
}

/// One line of a picture.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) key: Key,
    /// Connections and value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over the number of connections.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) head: Head,
    pub(crate) unit: Unit,
    pub(crate) log: bool,
    pub(crate) series: Vec<Series>,
    /// Dashed lines across, with what they mean.
    pub(crate) limits: Vec<(f64, String)>,
}

impl Lines {
    const HEIGHT: f64 = 430.0;

    pub(crate) fn draw(&self) -> String {
        let head = Head { legend: self.series.iter().map(|series| series.key.clone()).collect(), ..self.head.clone() };
        let mut canvas = Canvas::new(&head.title, WIDTH, Self::HEIGHT);
        let top = head.draw(&mut canvas) + 14.0;
        let (left, right, bottom) = (MARGIN + 58.0, WIDTH - MARGIN - 8.0, Self::HEIGHT - 58.0);
        let points = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let values = points().map(|(_, value)| value).chain(self.limits.iter().map(|(value, _)| *value));
        let up = if self.log { Axis::log(values, bottom, top) } else { Axis::linear(values, bottom, top) };
        let across = Axis::steps(points().map(|(connections, _)| connections), left, right);
        self.grid(&mut canvas, up, across, (left, right), bottom);
        for series in &self.series {
            let dashed = series.key.shape == Shape::Dashes;
            let places: Vec<_> = series.points.iter().map(|(x, y)| (across.at(*x), up.at(*y))).collect();
            canvas.path(&places, series.key.color, dashed);
            for place in &places {
                canvas.dot(*place, 5.0, series.key.color, dashed);
            }
        }
        self.values(&mut canvas, up, across);
        canvas.finish()
    }

    fn grid(&self, canvas: &mut Canvas, up: Axis, across: Axis, (left, right): (f64, f64), bottom: f64) {
        for (value, labelled) in up.ticks() {
            let y = up.at(value);
            canvas.line((left, y), (right, y), GRID, 1.0, false);
            if labelled {
                canvas.text((left - 10.0, y + 4.0), &self.unit.show(value), SMALL.at(Anchor::End));
            }
        }
        let mut steps: Vec<f64> = self.series.iter().flat_map(|series| &series.points).map(|point| point.0).collect();
        steps.sort_unstable_by(f64::total_cmp);
        steps.dedup();
        for step in steps {
            canvas.line((across.at(step), bottom), (across.at(step), bottom + 5.0), SOFT, 1.0, false);
            canvas.text((across.at(step), bottom + 20.0), &Unit::Count.show(step), SMALL.at(Anchor::Middle));
        }
        canvas.line((left, bottom), (right, bottom), SOFT, 1.0, false);
        canvas.text((f64::midpoint(left, right), bottom + 42.0), "connections", SMALL.at(Anchor::Middle));
        for (value, text) in &self.limits {
            let y = up.at(*value);
            canvas.line((left, y), (right, y), SOFT, 1.2, true);
            canvas.text((left + 8.0, y - 6.0), text, SMALL);
        }
    }

    /// The number beside each point: above, below or to the left of it, wherever there is room.
    fn values(&self, canvas: &mut Canvas, up: Axis, across: Axis) {
        let style = |color| Style::new(12.0, color).bold().at(Anchor::Middle);
        let limit = |(value, text): &(f64, String)| Place::new(0.0, up.at(*value) - 10.0, SMALL.width(text) + 100.0);
        let mut taken: Vec<Place> = self.limits.iter().map(limit).collect();
        let points = || self.series.iter().flat_map(|series| series.points.iter().map(move |point| (series, *point)));
        taken.extend(points().map(|(_, (x, y))| Place::new(across.at(x), up.at(y), 6.0)));
        for (series, (x, y)) in points() {
            let text = self.unit.show(y);
            let half = style(INK).width(&text) / 2.0;
            let (x, y) = (across.at(x), up.at(y));
            let tries = [(x, y - 15.0), (x, y + 15.0), (x - half - 12.0, y)];
            let free = tries.map(|(x, y)| Place::new(x, y, half)).into_iter().find(|place| place.is_free(&taken));
            if let Some(place) = free {
                canvas.text((place.x, place.y + 4.0), &text, style(series.key.color));
                taken.push(place);
            }
        }
    }
}

/// A text's middle and half its width.
#[derive(Clone, Copy, Debug)]
struct Place {
    x: f64,
    y: f64,
    half: f64,
}

impl Place {
    const fn new(x: f64, y: f64, half: f64) -> Self {
        Self { x, y, half }
    }

    fn is_free(&self, taken: &[Self]) -> bool {
        taken.iter().all(|it| (it.y - self.y).abs() > 13.0 || (it.x - self.x).abs() > it.half + self.half)
    }
}
