//! Degree distributions: how many of the base graph's columns have which degree.

use super::question::FrameSize;

/// Columns of every base graph.
pub(super) const COLUMNS: usize = 400;

/// A base graph's degrees, for any size of circulant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Design {
    /// Rows of the base graph, each of which can be split in two.
    pub(super) rows: usize,
    /// Degree and number of columns, ascending.
    pub(super) columns: Vec<(usize, usize)>,
}

impl Design {
    /// The design with this many rows, between the two anchors next to it.
    ///
    /// # Panics
    /// If the rows are not from [`ROWS_MIN`] to [`ROWS_MAX`].
    pub(super) fn with_rows(rows: usize) -> Self {
        assert!((ROWS_MIN..=ROWS_MAX).contains(&rows), "rows within the anchors");
        let above = ANCHORS.iter().position(|anchor| anchor.rows >= rows).expect("within the anchors");
        let (high, low) = (&ANCHORS[above], &ANCHORS[above.saturating_sub(1)]);
        let span = (high.rows - low.rows).max(1);
        let count = |anchor: &Anchor, degree| {
            anchor.columns.iter().find(|(of, _)| *of == degree).map_or(0, |(_, count)| *count)
        };
        let mix = |degree| (count(low, degree) * (high.rows - rows) + count(high, degree) * (rows - low.rows)) / span;
        let degrees = 2..=DEGREE_MAX;
        let mut columns: Vec<(usize, usize)> = if high.rows == low.rows {
            high.columns.to_vec()
        } else {
            degrees.map(|degree| (degree, mix(degree))).filter(|(_, count)| *count > 0).collect()
        };
        // Columns of degree two are a path over the rows; what rounding leaves has degree three.
        columns[0].1 = columns[0].1.min(rows - 1);
        columns[1].1 += COLUMNS - columns.iter().map(|(_, count)| count).sum::<usize>();
        Self { rows, columns }
    }
}

/// Parities over entropy at which nearly every frame decodes in some forty iterations, by entropy: measured.
pub(super) fn efficiency(size: FrameSize, entropy: f64) -> f64 {
    let points: &[(f64, f64)] = match size {
        FrameSize::Long => &LONG,
        FrameSize::Short => &SHORT,
    };
    let above = points.iter().position(|(at, _)| *at >= entropy).unwrap_or(points.len() - 1);
    let ((x0, y0), (x1, y1)) = (points[above.saturating_sub(1)], points[above]);
    let along = if x1 > x0 { ((entropy - x0) / (x1 - x0)).clamp(0.0, 1.0) } else { 0.0 };
    y0 + along * (y1 - y0)
}

const LONG: [(f64, f64); 7] =
    [(0.05, 1.165), (0.08, 1.15), (0.14, 1.132), (0.19, 1.112), (0.28, 1.099), (0.40, 1.083), (0.50, 1.076)];

const SHORT: [(f64, f64); 6] = [(0.08, 1.22), (0.14, 1.18), (0.19, 1.16), (0.28, 1.14), (0.40, 1.125), (0.50, 1.12)];

/// A distribution found by density evolution.
struct Anchor {
    rows: usize,
    columns: &'static [(usize, usize)],
}

/// Fewest rows of a base graph.
pub(super) const ROWS_MIN: usize = ANCHORS[0].rows;

/// Most rows of a base graph.
pub(super) const ROWS_MAX: usize = ANCHORS[ANCHORS.len() - 1].rows;

// The rows of a question are one byte.
const _: () = assert!(ROWS_MAX <= 255);

/// Highest degree of a column.
const DEGREE_MAX: usize = 30;

/// The designs, ascending in rows. Those below 7 % converge in 200 rounds of message passing, the others in 110.
const ANCHORS: [Anchor; 13] = [
    // Designed for an error rate of 0.8 %: mean degrees 6.99 and 93.2.
    Anchor { rows: 30, columns: &[(2, 29), (3, 218), (6, 33), (7, 47), (8, 25), (9, 4), (30, 44)] },
    // Designed for an error rate of 1.05 %: mean degrees 6.62 and 69.7.
    Anchor { rows: 38, columns: &[(2, 37), (3, 220), (6, 27), (7, 43), (8, 26), (9, 8), (30, 39)] },
    // Designed for an error rate of 1.35 %: mean degrees 5.39 and 45.9.
    Anchor { rows: 47, columns: &[(2, 45), (3, 234), (7, 22), (8, 25), (9, 30), (10, 29), (30, 15)] },
    // Designed for an error rate of 1.75 %: mean degrees 5.37 and 37.7.
    Anchor { rows: 57, columns: &[(2, 55), (3, 229), (7, 8), (8, 26), (9, 54), (10, 12), (30, 16)] },
    // Designed for an error rate of 2.25 %: mean degrees 5.12 and 30.1.
    Anchor { rows: 68, columns: &[(2, 66), (3, 225), (7, 5), (8, 19), (9, 36), (10, 37), (30, 12)] },
    // Designed for an error rate of 2.9 %: mean degrees 5.54 and 27.0.
    Anchor { rows: 82, columns: &[(2, 80), (3, 209), (7, 6), (8, 67), (9, 10), (10, 4), (30, 24)] },
    // Designed for an error rate of 3.7 %: mean degrees 5.28 and 21.3.
    Anchor { rows: 99, columns: &[(2, 96), (3, 201), (8, 53), (9, 29), (30, 21)] },
    // Designed for an error rate of 4.7 %: mean degrees 5.01 and 17.0.
    Anchor { rows: 118, columns: &[(2, 114), (3, 191), (7, 3), (8, 24), (9, 50), (30, 18)] },
    // Designed for an error rate of 5.9 %: mean degrees 4.54 and 13.1.
    Anchor { rows: 139, columns: &[(2, 135), (3, 174), (5, 3), (6, 2), (7, 2), (8, 49), (9, 17), (24, 17), (30, 1)] },
    // Designed for an error rate of 7.4 %: mean degrees 4.59 and 11.0.
    Anchor { rows: 167, columns: &[(2, 162), (3, 145), (4, 1), (7, 33), (8, 39), (20, 7), (30, 13)] },
    // Designed for an error rate of 9.2 %: mean degrees 4.49 and 9.2.
    Anchor { rows: 195, columns: &[(2, 178), (3, 129), (4, 1), (6, 21), (7, 36), (10, 19), (30, 16)] },
    // Designed for an error rate of 11.3 %: mean degrees 4.45 and 8.0.
    Anchor { rows: 222, columns: &[(2, 188), (3, 125), (7, 65), (8, 4), (30, 18)] },
    // Designed for an error rate of 14 %: mean degrees 3.84 and 6.0.
    Anchor { rows: 255, columns: &[(2, 206), (3, 117), (4, 2), (5, 1), (6, 17), (7, 40), (14, 6), (24, 6), (30, 5)] },
];
