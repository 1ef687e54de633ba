//! Curves of key rates as a picture: logarithmic rate over distance, with a legend and the limit of one span as
//! reference. Text is set in a font that the program carries, because a server may have none.

use std::path::Path;

use dejavu::sans;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::failure::{Context as _, Failure, Outcome};

/// What is drawn.
pub(super) struct Chart {
    /// Over the picture.
    pub(super) title: String,
    /// Name and points (km, bit/s) of each curve.
    pub(super) lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Name and points of the reference line.
    pub(super) limit: (String, Vec<(f64, f64)>),
}

/// Where and as what it is drawn.
pub(super) enum Picture<'a> {
    /// Scalable.
    Svg(&'a Path),
    /// Pixels.
    Png(&'a Path),
}

impl Picture<'_> {
    /// The file.
    pub(super) fn file(&self) -> &Path {
        match self {
            Self::Svg(file) | Self::Png(file) => file,
        }
    }
}

impl Chart {
    /// Draws into the file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn draw(&self, picture: &Picture<'_>) -> Outcome<()> {
        register_font(FONT, FontStyle::Normal, sans::regular())
            .map_err(|_| Failure::new("the program's own font cannot be read"))?;
        let what = || format!("cannot write the picture {}", picture.file().display());
        match picture {
            Picture::Svg(file) => self.draw_on(&SVGBackend::new(file, size(1)).into_drawing_area(), 1).context(what),
            // Pixels are whole: twice as many make smooth lines and sharp letters.
            Picture::Png(file) => self.draw_on(&BitMapBackend::new(file, size(2)).into_drawing_area(), 2).context(what),
        }
    }

    fn draw_on<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: u32,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        area.fill(&WHITE)?;
        let (km, rates) = self.ranges();
        let sample = SAMPLE * scale;
        let (dash, gap, legend) = (DASH * scale, GAP * scale, i32::try_from(sample).unwrap_or(i32::MAX));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 24 * scale))
            .margin(16 * scale)
            .margin_right(28 * scale)
            .x_label_area_size(56 * scale)
            .y_label_area_size(84 * scale)
            .build_cartesian_2d(km, rates.clone().log_scale())?;
        chart
            .configure_mesh()
            .x_desc("fibre length (km)")
            .y_desc("secret key rate (bit/s)")
            .axis_desc_style((FONT, 20 * scale))
            .label_style((FONT, 16 * scale))
            .x_label_formatter(&|km| format!("{km:.0}"))
            .y_label_formatter(&|rate| decade(*rate))
            .y_labels(12)
            .axis_style(BLACK.stroke_width(scale))
            .bold_line_style(BLACK.mix(0.18).stroke_width(scale))
            .light_line_style(BLACK.mix(0.05).stroke_width(scale))
            .draw()?;
        // A rate of nothing is nowhere on a logarithmic axis: a curve ends at its last key.
        let visible = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points.iter().copied().filter(|(_, rate)| rates.contains(rate)).collect()
        };
        let grey = RGBColor(110, 110, 110).stroke_width(2 * scale);
        chart
            .draw_series(DashedLineSeries::new(visible(&self.limit.1), dash, gap, grey))?
            .label(&self.limit.0)
            .legend(move |(x, y)| DashedPathElement::new([(x, y), (x + legend, y)], dash, gap, grey));
        for (i, (name, points)) in self.lines.iter().enumerate() {
            let style = COLOURS[i % COLOURS.len()].stroke_width(3 * scale);
            let points = visible(points);
            let name = if points.is_empty() { format!("{name}: no key here") } else { name.clone() };
            let dots = if points.len() == 1 { points.clone() } else { Vec::new() };
            chart.draw_series(dots.into_iter().map(|dot| Circle::new(dot, 4 * scale, style.filled())))?;
            // Beyond the palette curves are dashed.
            if i < COLOURS.len() {
                chart
                    .draw_series(LineSeries::new(points, style))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + legend, y)], style));
            } else {
                chart
                    .draw_series(DashedLineSeries::new(points, dash, gap, style))?
                    .label(name)
                    .legend(move |(x, y)| DashedPathElement::new([(x, y), (x + legend, y)], dash, gap, style));
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .legend_area_size(sample + 10 * scale)
            .margin(12 * scale)
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 16 * scale))
            .draw()?;
        area.present()
    }

    /// Distances, and whole decades around the curves: not more than twelve, for at the end of its reach a rate falls
    /// without bound.
    fn ranges(&self) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
        let all = self.lines.iter().map(|(_, points)| points).chain([&self.limit.1]).flatten();
        let (mut first, mut last, mut highest) = (f64::INFINITY, 0.0_f64, f64::MIN_POSITIVE);
        for (km, rate) in all {
            (first, last) = (first.min(*km), last.max(*km));
            if rate.is_finite() {
                highest = highest.max(*rate);
            }
        }
        let ours = self.lines.iter().flat_map(|(_, points)| points).map(|(_, rate)| *rate);
        let lowest = ours.filter(|rate| *rate > 0.0).fold(highest, f64::min);
        let top = 10_f64.powf(highest.log10().ceil());
        let bottom = 10_f64.powf(lowest.log10().floor()).clamp(top * 1e-12, top * 0.1);
        (first..last.max(first + 1.0), bottom..top)
    }
}

/// Powers of ten in words that fit an axis; nothing between them.
fn decade(rate: f64) -> String {
    let power = rate.log10().round();
    if (rate.log10() - power).abs() > 1e-6 {
        return String::new();
    }
    let superscript = |digit: char| match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32(0x2070 + digit.to_digit(10).unwrap_or(0)).unwrap_or(digit),
    };
    format!("10{}", format!("{power:.0}").chars().map(superscript).collect::<String>())
}

/// Of a picture, in units of the backend.
fn size(scale: u32) -> (u32, u32) {
    (1_200 * scale, 760 * scale)
}

const FONT: &str = "sans-serif";
/// Dashes, and what is between them.
const DASH: u32 = 8;
const GAP: u32 = 5;
/// Length of a line's sample in the legend.
const SAMPLE: u32 = 30;
/// Told apart by the colour-blind too: Okabe, Ito (2008), without yellow and black.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_have_superscripts() {
        assert_eq!(decade(1e-12), "10⁻¹²");
        assert_eq!(decade(1.0), "10⁰");
        assert_eq!(decade(1e5), "10⁵");
        assert_eq!(decade(2e5), "");
    }

    #[test]
    fn ranges_are_whole_decades() {
        let chart = |points: Vec<(f64, f64)>| Chart {
            title: String::new(),
            lines: vec![(String::new(), points)],
            limit: (String::new(), vec![(0.0, f64::INFINITY), (10.0, 5e8)]),
        };
        assert_eq!(chart(vec![(0.0, 3e4), (10.0, 0.0)]).ranges(), (0.0..10.0, 1e4..1e9));
        let (km, rates) = chart(vec![(0.0, 0.0)]).ranges();
        assert_eq!((km, rates.end), (0.0..10.0, 1e9));
        assert!(rates.start < rates.end);
        let (_, rates) = chart(vec![(0.0, 1e-30)]).ranges();
        assert!(rates.start > 1e-4 && rates.start < 1e-2);
    }
}
