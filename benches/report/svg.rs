//! A small writer of SVG: shapes and text on a white card that looks the same on a light and a dark page.

use std::fmt::Write as _;

pub(crate) const INK: &str = "#1f2933";
pub(crate) const SOFT: &str = "#52606d";
pub(crate) const GRID: &str = "#e4e7eb";
const EDGE: &str = "#cbd2d9";
const FONT: &str = "-apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif";

/// Where a text stands at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) size: f64,
    pub(crate) color: &'static str,
    pub(crate) bold: bool,
    pub(crate) anchor: Anchor,
}

impl Style {
    pub(crate) const fn new(size: f64, color: &'static str) -> Self {
        Self { size, color, bold: false, anchor: Anchor::Start }
    }

    pub(crate) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(crate) const fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// Width of a text in pixels, somewhat generous: which font draws it is not known.
    pub(crate) fn width(self, text: &str) -> f64 {
        let em: f64 = text
            .chars()
            .map(|letter| match letter {
                'i' | 'l' | 'j' | '.' | ',' | ':' | '|' | '\'' | ' ' => 0.34,
                'm' | 'w' | 'M' | 'W' | '%' => 0.88,
                letter if letter.is_ascii_uppercase() => 0.71,
                _ => 0.61,
            })
            .sum();
        em * self.size * if self.bold { 1.12 } else { 1.0 }
    }
}

/// A drawing in the making, in pixels from the top left corner.
pub(crate) struct Canvas {
    body: String,
    title: String,
    width: f64,
    height: f64,
}

impl Canvas {
    /// `title` is what a reader hears who does not see the picture.
    pub(crate) fn new(title: &str, width: f64, height: f64) -> Self {
        Self { body: String::new(), title: title.to_owned(), width, height }
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64, dashed: bool) {
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"{dash}/>",
            from.0, from.1, to.0, to.1
        );
    }

    pub(crate) fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, color: &str) {
        let width = width.max(0.0);
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>"
        );
    }

    /// A point; hollow ones show what is behind their rim.
    pub(crate) fn dot(&mut self, at: (f64, f64), radius: f64, color: &str, hollow: bool) {
        let (fill, rim) = if hollow { ("#ffffff", color) } else { (color, "#ffffff") };
        let _ = writeln!(
            self.body,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"{rim}\" stroke-width=\"1.5\"/>",
            at.0, at.1
        );
    }

    pub(crate) fn path(&mut self, points: &[(f64, f64)], color: &str, dashed: bool) {
        let dash = if dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.2\" stroke-linejoin=\"round\"{dash}/>",
            points.join(" ")
        );
    }

    /// A text whose baseline begins, ends or has its middle at a point.
    pub(crate) fn text(&mut self, at: (f64, f64), text: &str, style: Style) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if style.bold { " font-weight=\"600\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{weight}>{}</text>",
            at.0,
            at.1,
            style.size,
            style.color,
            escape(text)
        );
    }

    /// The whole file.
    pub(crate) fn finish(self) -> String {
        let Self { body, title, width, height } = self;
        let title = escape(&title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\" font-family=\"{FONT}\">\n\
             <title>{title}</title>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"{EDGE}\"/>\n\
             {body}</svg>\n",
            width - 1.0,
            height - 1.0
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
