//! Digits drawn with a round pen on a canvas are recognised, wherever and however large they are.

use std::f32::consts::PI;

use mha::Isa;
use mha_nets::digits::Digits;
use mha_nets::{best, drawing};

const WIDTH: usize = 280;

type Point = (f32, f32);

/// Points on an ellipse's arc; angles in units of π, clockwise from the right (y points down).
fn arc(centre: Point, radius: Point, start: f32, end: f32) -> Vec<Point> {
    let at = |i: u8| {
        let angle = PI * (start + (end - start) * f32::from(i) / 24.0);
        (centre.0 + radius.0 * angle.cos(), centre.1 + radius.1 * angle.sin())
    };
    (0..=24).map(at).collect()
}

/// A digit as strokes in a box of about 1 × 1. These are other curves than those of the training.
fn strokes(digit: u8) -> Vec<Vec<Point>> {
    match digit {
        0 => vec![arc((0.5, 0.5), (0.4, 0.5), -0.5, 1.5)],
        1 => vec![vec![(0.3, 0.2), (0.55, 0.0), (0.55, 1.0)]],
        2 => {
            vec![[arc((0.5, 0.27), (0.4, 0.27), -1.0, 0.25), vec![(0.1, 1.0), (0.9, 1.0)]].concat()]
        }
        3 => vec![
            [arc((0.45, 0.25), (0.4, 0.25), -0.8, 0.5), arc((0.45, 0.75), (0.45, 0.25), -0.5, 0.8)]
                .concat(),
        ],
        4 => vec![vec![(0.6, 0.0), (0.1, 0.65), (0.9, 0.65)], vec![(0.65, 0.35), (0.65, 1.0)]],
        5 => vec![
            [vec![(0.9, 0.0), (0.2, 0.0), (0.15, 0.45)], arc((0.45, 0.68), (0.4, 0.3), -0.6, 0.8)]
                .concat(),
        ],
        6 => vec![
            [vec![(0.7, 0.0), (0.3, 0.35)], arc((0.47, 0.72), (0.35, 0.28), -1.0, 1.0)].concat(),
        ],
        7 => vec![vec![(0.1, 0.0), (0.9, 0.0), (0.4, 1.0)]],
        8 => vec![
            [arc((0.5, 0.25), (0.3, 0.25), 0.5, 2.5), arc((0.5, 0.75), (0.4, 0.25), -0.5, 1.5)]
                .concat(),
        ],
        _ => {
            vec![[arc((0.5, 0.28), (0.35, 0.28), 0.0, 2.0), vec![(0.8, 0.6), (0.7, 1.0)]].concat()]
        }
    }
}

/// The strokes, scaled and moved, in ink of a round pen.
fn draw(strokes: &[Vec<Point>], size: f32, corner: Point, pen: f32) -> Vec<u8> {
    let mut canvas = vec![0; WIDTH * WIDTH];
    let place = |(x, y): Point| (corner.0 + 0.75 * size * x, corner.1 + size * y);
    for stroke in strokes {
        for pair in stroke.windows(2) {
            let (a, b) = (place(pair[0]), place(pair[1]));
            let (dx, dy) = (b.0 - a.0, b.1 - a.1);
            for (i, pixel) in canvas.iter_mut().enumerate() {
                let (x, y) = ((i % WIDTH) as f32 - a.0, (i / WIDTH) as f32 - a.1);
                let along = ((x * dx + y * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
                let (x, y) = (x - along * dx, y - along * dy);
                if x * x + y * y < pen * pen {
                    *pixel = 255;
                }
            }
        }
    }
    canvas
}

#[test]
fn drawn_digits_are_recognised() {
    let network = Digits::committed(Isa::PORTABLE);
    // Large and small, in the middle and in a corner, with a thin, a usual and a thick pen.
    for (size, corner, pen) in
        [(200.0, (60.0, 40.0), 12.0), (200.0, (60.0, 40.0), 7.0), (90.0, (20.0, 160.0), 7.0)]
    {
        for digit in 0..10 {
            let canvas = draw(&strokes(digit), size, corner, pen);
            let image = drawing::image(&canvas, WIDTH).unwrap();
            let (mut logits, mut scratch) = ([0.0; 10], [0.0; Digits::SCRATCH_LEN]);
            network.classify(&image, &mut logits, None, &mut scratch).unwrap();
            assert_eq!(best(&logits), usize::from(digit), "size {size}, pen {pen}: {image:?}");
        }
    }
}

#[test]
fn no_canvas_is_too_odd() {
    assert_eq!(drawing::image(&[], 0), None);
    assert_eq!(drawing::image(&[255; 7], 0), None);
    assert_eq!(drawing::image(&[0; 12], 5), None);
    // A row that is not whole does not count.
    assert_eq!(drawing::image(&[0, 0, 0, 255], 3), None);
    for (canvas, width) in
        [(vec![255; 1], 1), (vec![255; 4000], 4000), (vec![255; 4000], 1), (vec![255; 10000], 100)]
    {
        let image = drawing::image(&canvas, width).unwrap();
        assert!(image.iter().all(|&block| block <= 16));
        assert!(image.iter().any(|&block| block > 0));
    }
}
