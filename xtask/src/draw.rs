//! Pictures in a terminal.
//!
//! A picture is drawn in blocks of characters that can be put side by side. A character shows two
//! points, one above the other: `▀` with a colour for the upper and one behind it for the lower.
//! Where the terminal has no colour it shows the mean of the two as one of ten characters, so a
//! picture takes the same room in both styles.

use std::io::IsTerminal;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// 24-bit colour.
    Colour,
    /// ASCII alone.
    Characters,
}

impl Style {
    /// What standard output can show. <https://no-color.org>
    pub(crate) fn detect() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if set("NO_COLOR") || dumb || !std::io::stdout().is_terminal() {
            Self::Characters
        } else {
            Self::Colour
        }
    }

    /// Emphasised text.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("\x1b[1m", text)
    }

    /// Text that stands back.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("\x1b[2m", text)
    }

    fn wrap(self, escape: &str, text: &str) -> String {
        match self {
            Self::Colour => format!("{escape}{text}\x1b[0m"),
            Self::Characters => text.into(),
        }
    }
}

/// A colour in 24 bits.
type Colour = [u8; 3];

/// Colours for 0 to 1.
#[derive(Clone, Copy)]
pub(crate) enum Palette {
    /// Ink on a dark page.
    Ink,
    /// Heat: how much attention. Matplotlib's inferno, at even steps.
    Heat,
    /// Low to high about a middle, blue over grey to orange.
    Diverging,
}

impl Palette {
    fn stops(self) -> &'static [Colour] {
        match self {
            Self::Ink => &[[22, 24, 30], [245, 245, 235]],
            Self::Heat => &[
                [0, 0, 4],
                [31, 12, 72],
                [85, 15, 109],
                [136, 34, 106],
                [186, 54, 85],
                [227, 89, 51],
                [249, 140, 10],
                [249, 201, 50],
                [252, 255, 164],
            ],
            Self::Diverging => {
                &[[38, 84, 178], [92, 148, 214], [70, 74, 82], [224, 142, 70], [250, 196, 110]]
            }
        }
    }

    fn colour(self, value: f32) -> Colour {
        let stops = self.stops();
        let place = value.clamp(0.0, 1.0) * (stops.len() - 1) as f32;
        let below = (place as usize).min(stops.len() - 2);
        let part = place - below as f32;
        let mix = |c: usize| {
            let (low, high) = (f32::from(stops[below][c]), f32::from(stops[below + 1][c]));
            (low + (high - low) * part).round() as u8
        };
        [mix(0), mix(1), mix(2)]
    }
}

/// Ten characters, from empty to full.
const RAMP: &[u8; 10] = b" .:-=+*#%@";

/// Values on a grid, to be drawn.
pub(crate) struct Picture {
    columns: usize,
    values: Vec<f32>,
    palette: Palette,
}

impl Picture {
    /// Values of 0 to 1, row by row.
    pub(crate) fn new(columns: usize, values: Vec<f32>, palette: Palette) -> Self {
        Self { columns: columns.max(1), values, palette }
    }

    /// Every point `across` characters wide and `down` half-characters high.
    pub(crate) fn enlarge(self, across: usize, down: usize) -> Self {
        let mut values = Vec::new();
        for row in self.values.chunks(self.columns) {
            let wide = || row.iter().flat_map(|&value| std::iter::repeat_n(value, across));
            (0..down).for_each(|_| values.extend(wide()));
        }
        Self { columns: self.columns * across, values, palette: self.palette }
    }

    /// The characters.
    pub(crate) fn draw(&self, style: Style) -> Block {
        let rows: Vec<_> = self.values.chunks(self.columns).collect();
        let lines = rows.chunks(2).map(|pair| self.line(pair[0], pair.get(1).copied(), style));
        Block { width: self.columns, lines: lines.collect() }
    }

    fn line(&self, upper: &[f32], lower: Option<&[f32]>, style: Style) -> String {
        let mut line = String::new();
        for (i, &above) in upper.iter().enumerate() {
            let below = lower.map(|row| row[i]);
            match style {
                Style::Characters => {
                    let value = f32::midpoint(above, below.unwrap_or(above)).clamp(0.0, 1.0);
                    line.push(char::from(RAMP[(value * 9.99) as usize]));
                }
                Style::Colour => {
                    let [r, g, b] = self.palette.colour(above);
                    line += &format!("\x1b[38;2;{r};{g};{b}");
                    // Below the last row of an odd number is nothing but the terminal's own colour.
                    if let Some([r, g, b]) = below.map(|value| self.palette.colour(value)) {
                        line += &format!(";48;2;{r};{g};{b}");
                    }
                    line += "m▀";
                }
            }
        }
        if style == Style::Colour {
            line += "\x1b[0m";
        }
        line
    }
}

/// A curve through values, filled below, and the lowest and highest of what it shows: means over as many
/// values as a column stands for.
pub(crate) fn curve(values: &[f32], width: usize, lines: usize) -> (Picture, [f32; 2]) {
    let (width, rows) = (width.clamp(1, values.len().max(1)), 2 * lines.max(1));
    let column = |i: usize| {
        let own = &values[i * values.len() / width..(i + 1) * values.len() / width];
        own.iter().sum::<f32>() / own.len().max(1) as f32
    };
    let columns: Vec<f32> = (0..width).map(column).collect();
    let (low, high) = columns
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    let span = if high > low { high - low } else { 1.0 };
    let mut points = Vec::new();
    for row in 0..rows {
        // The lowest row is always filled.
        let level = (rows - 1 - row) as f32 / rows as f32;
        points.extend(columns.iter().map(|&x| {
            let height = (x - low) / span;
            if height >= level { 0.35 + 0.5 * height } else { 0.0 }
        }));
    }
    (Picture::new(width, points, Palette::Heat), [low, high])
}

/// Lines of characters of one width, escapes not counted.
pub(crate) struct Block {
    width: usize,
    lines: Vec<String>,
}

impl Block {
    /// Lines of text without escapes.
    pub(crate) fn text(lines: &[String]) -> Self {
        let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let pad = |line: &String| format!("{line}{}", " ".repeat(width - line.chars().count()));
        Self { width, lines: lines.iter().map(pad).collect() }
    }

    /// How wide it is.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// With a title above, cut to the block's width.
    pub(crate) fn titled(mut self, title: &str, style: Style) -> Self {
        let width = self.width;
        let title: String = title.chars().take(width).collect();
        let title = format!("{title:width$}");
        self.lines.insert(0, style.dim(&title));
        self
    }

    /// Blocks side by side, `gap` characters apart, indented by as many.
    pub(crate) fn beside(blocks: &[Self], gap: usize) -> String {
        let height = blocks.iter().map(|block| block.lines.len()).max().unwrap_or(0);
        let mut all = String::new();
        for row in 0..height {
            let mut line = String::new();
            for block in blocks {
                line += &" ".repeat(gap);
                match block.lines.get(row) {
                    Some(part) => line += part,
                    None => line += &" ".repeat(block.width),
                }
            }
            all += line.trim_end();
            all.push('\n');
        }
        all
    }
}

/// A bar of up to `width` characters for 0 to 1.
pub(crate) fn bar(value: f32, width: usize, style: Style) -> String {
    let full = (value.clamp(0.0, 1.0) * width as f32).round() as usize;
    let (on, off) = if style == Style::Colour { ("█", "·") } else { ("#", ".") };
    on.repeat(full) + &off.repeat(width - full)
}

#[cfg(test)]
mod tests {
    use super::{Block, Palette, Picture, Style, bar, curve};

    /// Drops the escapes: what is left is what takes room.
    fn visible(line: &str) -> String {
        let mut parts = line.split('\x1b');
        let first = parts.next().unwrap_or_default().to_string();
        parts.fold(first, |seen, part| seen + part.split_once('m').map_or("", |(_, rest)| rest))
    }

    fn ramp() -> Picture {
        Picture::new(2, vec![0.0, 1.0, 1.0, 1.0, 0.5, 0.0], Palette::Heat)
    }

    #[test]
    fn both_styles_take_the_same_room() {
        for style in [Style::Colour, Style::Characters] {
            let block = ramp().enlarge(3, 2).draw(style);
            assert_eq!((block.width, block.lines.len()), (6, 3));
            assert!(block.lines.iter().all(|line| visible(line).chars().count() == 6));
        }
    }

    #[test]
    fn without_colour_there_is_nothing_but_ascii() {
        let block = ramp().draw(Style::Characters);
        assert_eq!(block.lines, ["=@", "= "]);
        assert!(bar(0.5, 4, Style::Characters).is_ascii());
    }

    #[test]
    fn with_colour_a_character_has_two() {
        let block = ramp().draw(Style::Colour);
        assert!(block.lines[0].starts_with("\x1b[38;2;0;0;4;48;2;252;255;164m▀"));
        // The odd last row has nothing behind it.
        assert!(block.lines[1].starts_with("\x1b[38;2;186;54;85m▀"));
        assert!(block.lines.iter().all(|line| line.ends_with("\x1b[0m")));
    }

    #[test]
    fn blocks_stand_side_by_side() {
        let left = ramp().draw(Style::Characters).titled("long title", Style::Characters);
        let right = Block::text(&["one".into()]);
        assert_eq!(Block::beside(&[left, right], 1), " lo one\n =@\n =\n");
    }

    #[test]
    fn a_curve_falls_from_left_to_right() {
        let falling: Vec<f32> = (0..100).map(|i| 100.0 - i as f32).collect();
        let (picture, [low, high]) = curve(&falling, 10, 5);
        assert_eq!((low, high), (5.5, 95.5));
        let lines = picture.draw(Style::Characters).lines;
        let filled: Vec<_> = lines.iter().map(|line| line.trim_end().len()).collect();
        assert!(filled.is_sorted() && filled[0] < 4 && filled[4] == 10, "{lines:?}");
        assert_eq!(curve(&[], 3, 1).0.draw(Style::Characters).lines.len(), 1);
    }

    #[test]
    fn bars_have_one_width() {
        assert_eq!(bar(0.25, 8, Style::Characters), "##......");
        assert_eq!(bar(2.0, 3, Style::Characters), "###");
        assert_eq!(bar(f32::NAN, 3, Style::Colour), "···");
    }
}
