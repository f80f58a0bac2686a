//! Every kernel that this machine runs against plain loops and doubles: shapes around the tiles'
//! edges, strides, blocks, canaries between the rows that a kernel may touch, and pages that it may not
//! touch before or behind every operand.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::dropout::{self, Dropout};
use crate::softmax::{self, BLOCK, EXP2};
use guarded::{Edge, Guarded};

#[path = "../../tests/support/guarded.rs"]
mod guarded;

/// Something that nothing computes, to see what was written.
const CANARY: f32 = f32::from_bits(0x7fc0_beef);

/// Stands in for `f32::mul_add` of the family.
fn mul_add(fused: bool, a: f32, b: f32, c: f32) -> f32 {
    if fused { a.mul_add(b, c) } else { a * b + c }
}

/// A generator for tests that need no more than variety.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / 8_388_608.0 - 1.0
    }

    fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// How a product's right operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Right {
    Rows,
    Transposed,
    Blocks,
}

/// Room for the operands of a kernel.
struct Memory {
    a: Guarded,
    turned: Guarded,
    b: Guarded,
    c: Guarded,
    bias: Guarded,
}

impl Memory {
    fn new() -> Self {
        let room = || Guarded::new(1 << 19);
        Self { a: room(), turned: room(), b: room(), c: room(), bias: room() }
    }
}

/// Canaries on the side of a result where nothing is forbidden.
const MARGIN: usize = 32;

/// Places a result at the edge, and canaries on its other side.
fn place<'m>(memory: &'m mut Guarded, result: &[f32], edge: Edge) -> &'m mut [f32] {
    let margin = [CANARY; MARGIN];
    let parts = if edge == Edge::End { [&margin, result] } else { [result, &margin] };
    memory.place(&parts.concat(), edge)
}

fn check_product<K: Kernel>(
    fused: bool,
    (m, k, n): (usize, usize, usize),
    right: Right,
    gap: usize,
    memory: &mut Memory,
) {
    let noise = &mut Noise((m * 1_000_003 + k * 1009 + n) as u32);
    // Exactly as long as needed: a read past the end is a read past the slice.
    let len = |rows: usize, width: usize| {
        if rows * width == 0 { 0 } else { (rows - 1) * (width + gap) + width }
    };
    let a = noise.vec(len(m, k));
    let mut a_turned = vec![CANARY; len(k, m)];
    for (i, p) in (0..m).flat_map(|i| (0..k).map(move |p| (i, p))) {
        a_turned[p * (m + gap) + i] = a[i * (k + gap) + p];
    }
    let (row_stride, block_stride, column_stride) = match right {
        Right::Rows => (n + gap, BLOCK, 1),
        Right::Transposed => (1, BLOCK * (k + gap), k + gap),
        Right::Blocks => (BLOCK, k * BLOCK + gap, 1),
    };
    let b_at =
        |p: usize, j: usize| p * row_stride + j / BLOCK * block_stride + j % BLOCK * column_stride;
    let furthest = (0..n).map(|j| b_at(k.saturating_sub(1), j) + 1).max().unwrap_or(0);
    let b = noise.vec(if k == 0 { 0 } else { furthest });
    let c_at = |i: usize, j: usize| i * (n + gap) + j;
    let len = len(m, n);
    let bias = noise.vec(n);
    let kept = noise.vec(len);
    let what = std::format!("{m}×{k}×{n}, {right:?}, gap {gap}");

    for (i, start, scale) in [
        (0, Start::Zero, None),
        (1, Start::Zero, Some(0.3)),
        (2, Start::Keep, None),
        (3, Start::Columns(&bias), Some(-1.7)),
    ] {
        let mut before = vec![CANARY; len];
        let mut expected = vec![CANARY; len];
        for i in 0..m {
            for j in 0..n {
                if matches!(start, Start::Keep) {
                    before[c_at(i, j)] = kept[c_at(i, j)];
                }
                let first = match start {
                    Start::Zero => 0.0,
                    Start::Keep => kept[c_at(i, j)],
                    Start::Columns(bias) => bias[j],
                };
                let (mut sum, mut exact, mut size) =
                    (first, f64::from(first), f64::from(first.abs()));
                for p in 0..k {
                    let (a, b) = (a[i * (k + gap) + p], b[b_at(p, j)]);
                    sum = mul_add(fused, a, b, sum);
                    exact += f64::from(a) * f64::from(b);
                    size += f64::from(a * b).abs();
                }
                let scale = scale.unwrap_or(1.0);
                expected[c_at(i, j)] = sum * scale;
                // Each of the roundings is half a unit of a partial sum.
                let error = (f64::from(sum * scale) - exact * f64::from(scale)).abs();
                let bound = (2 * k + 1) as f64 * 2f64.powi(-24) * size * f64::from(scale.abs());
                assert!(error <= bound, "{what}: off by {error:e}, not {bound:e}");
            }
        }
        // At the end for every start, at the start for one of them.
        for edge in [Edge::End, Edge::Start] {
            if edge == Edge::Start && (m + k + n) % 4 != i {
                continue;
            }
            let c = place(&mut memory.c, &before, edge);
            let (at, margin) = if edge == Edge::End { (MARGIN, 0) } else { (0, len) };
            let start = match start {
                Start::Columns(bias) => Start::Columns(memory.bias.place(bias, edge)),
                start => start,
            };
            let data = memory.a.place(&a, edge);
            let a = Matrix { data, rows: m, columns: k, row_stride: k + gap };
            let data = memory.b.place(&b, edge);
            let b = Columns { data, rows: k, columns: n, row_stride, block_stride, column_stride };
            K::product(
                a,
                b,
                &mut MatrixMut::new(&mut c[at..at + len], m, n, n + gap),
                start,
                scale,
            );
            assert_eq!(
                bits(&c[at..at + len]),
                bits(&expected),
                "{what}, scale {scale:?}, {edge:?}"
            );
            let margin = bits(&c[margin..margin + MARGIN]);
            assert_eq!(margin, bits(&[CANARY; MARGIN]), "beside {what}, {edge:?}");

            // The same of a left operand that lies turned, and of pieces of it.
            let products = [K::product_turned, turned::product::<K>];
            for product in products.into_iter().filter(|_| (m + k + n + i).is_multiple_of(4)) {
                let c = place(&mut memory.c, &before, edge);
                let data = memory.turned.place(&a_turned, edge);
                let a = Matrix { data, rows: k, columns: m, row_stride: m + gap };
                let mut c = MatrixMut::new(&mut c[at..at + len], m, n, n + gap);
                product(a, b, &mut c, start, scale);
                let what = || std::format!("{what} turned, scale {scale:?}, {edge:?}");
                assert_eq!(bits(c.data), bits(&expected), "{}", what());
            }
        }
    }
}

/// The way back through the softmax against plain loops.
fn check_differentiate<K: Kernel>(memory: &mut Memory) {
    let mut noise = Noise(3);
    for (rows, columns) in [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 100].map(|n| (3, n)) {
        let stride = columns + 2;
        let len = if columns == 0 { 0 } else { 2 * stride + columns };
        let mut weights = noise.vec(len);
        // Of what has no weight anything may be there.
        let mut gradients = noise.vec(len);
        for i in 0..len {
            weights[i] = weights[i].abs();
            if i % 3 == 1 {
                weights[i] = 0.0;
                gradients[i] = if i % 2 == 0 { f32::NAN } else { f32::INFINITY };
            }
        }
        let deltas = noise.vec(rows);
        let mut expected = gradients.clone();
        for (i, delta) in deltas.iter().enumerate() {
            for j in 0..columns {
                let at = i * stride + j;
                let (w, g) = (weights[at], gradients[at]);
                expected[at] = if w > 0.0 { w * (g - delta) } else { 0.0 };
            }
        }
        for edge in [Edge::End, Edge::Start] {
            let data = memory.a.place(&weights, edge);
            let weights = Matrix { data, rows, columns, row_stride: stride };
            let data = memory.c.place(&gradients, edge);
            K::differentiate(weights, &mut MatrixMut::new(data, rows, columns, stride), &deltas);
            assert_eq!(bits(data), bits(&expected), "{columns} columns, {edge:?}");
        }
    }
}

/// Bits, all NaNs being one.
fn bits(x: &[f32]) -> Vec<u32> {
    let bits =
        |x: &f32| if x.is_nan() && x.to_bits() != CANARY.to_bits() { 0 } else { x.to_bits() };
    x.iter().map(bits).collect()
}

fn check_products<K: Kernel>(fused: bool, memory: &mut Memory) {
    let sizes = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 127, 128,
        129, 145,
    ];
    let rights = [Right::Rows, Right::Transposed, Right::Blocks];
    let mut noise = Noise(7);
    for m in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25] {
        for n in sizes {
            for k in [0, 1, 2, 3, 8, 17] {
                for right in rights {
                    let gap = (noise.next().to_bits() & 3) as usize;
                    check_product::<K>(fused, (m, k, n), right, gap, memory);
                }
            }
        }
    }
    // Deep and wide enough that panels are brought together, in several slices.
    for right in rights {
        check_product::<K>(fused, (17, 600, 150), right, 1, memory);
        check_product::<K>(fused, (1, 300, 270), right, 3, memory);
    }
    // Rows so far apart that panels are brought together for that alone.
    check_product::<K>(fused, (13, 9, 1000), Right::Rows, 24, memory);
    // A single row of more columns than are kept near.
    check_product::<K>(fused, (1, 7, 1099), Right::Rows, 0, memory);
}

/// The columns of a result in blocks: each row as it is where all lie side by side, and nothing between
/// the blocks.
fn check_blocks<K: Kernel>() {
    let mut noise = Noise(11);
    for (m, block, blocks) in [1, 2, 13].into_iter().flat_map(|m| {
        let blocks = [
            (1, 40),
            (3, 7),
            (8, 40),
            (16, 20),
            (24, 12),
            (32, 9),
            (64, 5),
            (72, 4),
            (72, 9),
            (160, 2),
        ];
        blocks.map(|(block, blocks)| (m, block, blocks))
    }) {
        let (n, k, gap) = (block * blocks - 2 * (block / 3), 5, 3);
        let (a, b) = (noise.vec(m * k), noise.vec(k * n));
        let (row_stride, block_stride) = (block + gap, m * (block + gap) + 1);
        let product = |c: &mut MatrixMut<'_>| {
            let a = Matrix { data: &a, rows: m, columns: k, row_stride: k };
            K::product(a, Columns::strided(&b, k, n, n, 1), c, Start::Zero, None);
        };
        let mut plain = vec![CANARY; m * n];
        product(&mut MatrixMut::new(&mut plain, m, n, n));
        let at = |i: usize, j: usize| i * row_stride + j / block * block_stride + j % block;
        let furthest = (0..n).map(|j| at(m - 1, j) + 1).max().unwrap_or(0);
        let mut memory = vec![CANARY; furthest + 40];
        let c = MatrixMut::new(&mut memory[..furthest], m, n, row_stride);
        product(&mut c.in_blocks(block, block_stride));
        let mut expected = vec![CANARY; furthest + 40];
        for (i, row) in plain.chunks(n).enumerate() {
            for (j, &x) in row.iter().enumerate() {
                expected[at(i, j)] = x;
            }
        }
        assert_eq!(bits(&memory), bits(&expected), "{m} rows, {blocks} blocks of {block}");
    }
}

fn check_turns<K: Kernel>(memory: &mut Memory) {
    let mut noise = Noise(5);
    let sizes = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40];
    for (rows, columns) in sizes.iter().flat_map(|&rows| sizes.map(|columns| (rows, columns))) {
        let (from_row, to_row) = (columns + 3, rows + 2);
        let len = |rows: usize, stride: usize, width: usize| match rows.min(width) {
            0 => 0,
            _ => (rows - 1) * stride + width,
        };
        let data = noise.vec(len(rows, from_row, columns));
        let mut expected = vec![CANARY; len(columns, to_row, rows)];
        for i in 0..rows {
            for j in 0..columns {
                expected[j * to_row + i] = data[i * from_row + j];
            }
        }
        for edge in [Edge::End, Edge::Start] {
            let to = memory.c.fill(CANARY, expected.len(), edge);
            let data = memory.a.place(&data, edge);
            let from = Matrix { data, rows, columns, row_stride: from_row };
            K::turn(from, &mut MatrixMut::new(to, columns, rows, to_row));
            assert_eq!(bits(to), bits(&expected), "{rows}×{columns}, {edge:?}");
        }
    }
}

fn check_rows<K: Kernel>(fused: bool, edge: Edge, memory: &mut Memory) {
    let mut noise = Noise(3);
    for len in 0..100 {
        // Three rows, the first of a maximum that is there already, canaries between them.
        let stride = len + MARGIN;
        let mut tile = vec![CANARY; 2 * stride + len];
        for row in tile.chunks_mut(stride.max(1)) {
            row[..len].iter_mut().for_each(|l| *l = noise.next() * 20.0);
            if len > 3 {
                row[len / 2] = f32::NEG_INFINITY;
                row[len / 3] = f32::NAN;
            }
        }
        let mut maxima = [30.0, f32::NEG_INFINITY, -3.0];
        let rows: Vec<Vec<f32>> = (0..3).map(|row| tile[row * stride..][..len].to_vec()).collect();
        let mut tops = [0.0; 3];
        let logits = tile;
        let tile = memory.a.place(&logits, edge);
        let view = MatrixMut::new(tile, 3, len, stride);
        let spread = K::tops(&view, &maxima, &mut tops);
        let (wide, near) = (spread == Spread::Wide, spread == Spread::Near);
        let mut any_wide = false;
        for ((row, &top), &m) in rows.iter().zip(&tops).zip(&maxima) {
            let visible = row.iter().copied().filter(|l| !l.is_nan());
            let highest = visible.clone().fold(f32::NEG_INFINITY, f32::max);
            let lowest = visible.filter(|l| *l > f32::NEG_INFINITY).fold(f32::INFINITY, f32::min);
            assert_eq!(top, highest, "top of {len}");
            any_wide |= softmax::is_wide(m, highest, lowest);
        }
        assert_eq!(wide, any_wide, "wide of {len}");

        let sums: [[f32; BLOCK]; 3] =
            core::array::from_fn(|_| core::array::from_fn(|_| noise.next().abs()));
        let mixed = noise.vec(3 * len + 2);
        let (mut expected_sums, mut expected_mixed) = (sums, mixed.clone());
        let sums = memory.bias.place(&sums, edge);
        let mixed = memory.b.place(&mixed, edge);
        let mut expected = vec![CANARY; tile.len()];
        let before = maxima;
        let mut view = MatrixMut::new(tile, 3, len, stride);
        let mut mix = MatrixMut::new(mixed, 3, len, len + 1);
        K::advance(&mut view, &tops, &mut maxima, sums, Some(&mut mix), near);
        for (row, logits) in rows.iter().enumerate() {
            let m = before[row].max(softmax::ceil(tops[row]));
            assert_eq!(maxima[row], m, "maximum of {len}");
            if m > before[row] {
                let shift = (before[row] - m).exp2();
                if shift > 0.0 {
                    expected_sums[row].iter_mut().for_each(|sum| *sum *= shift);
                }
                let out = &mut expected_mixed[row * (len + 1)..][..len];
                out.iter_mut().for_each(|x| *x = if shift > 0.0 { *x * shift } else { 0.0 });
            }
            for (j, &l) in logits.iter().enumerate() {
                let against = if m == f32::NEG_INFINITY { 0.0 } else { m };
                let weight = weight(fused, l, against);
                expected[row * stride + j] = weight;
                expected_sums[row][j % BLOCK] += weight;
            }
        }
        assert_eq!(bits(tile), bits(&expected), "weights of {len}");
        assert_eq!(bits(sums.as_flattened()), bits(expected_sums.as_flattened()), "sums of {len}");
        assert_eq!(bits(mixed), bits(&expected_mixed), "mixed of {len}");

        // Where this is all that the rows have.
        let settled = memory.c.place(&logits, edge);
        let (mut factors, mut maxima) = (tops, [0.0; 3]);
        K::settle(&mut MatrixMut::new(settled, 3, len, stride), &mut factors, &mut maxima, false);
        for (row, logits) in rows.iter().enumerate() {
            let m = softmax::ceil(tops[row]);
            assert_eq!(maxima[row], m, "maximum of {len} settled");
            let mut sums = [0.0; BLOCK];
            for (j, &l) in logits.iter().enumerate() {
                let weight = weight(fused, l, if m == f32::NEG_INFINITY { 0.0 } else { m });
                let got = settled[row * stride + j];
                assert_eq!(bits(&[got]), bits(&[weight]), "weight of {len} settled");
                sums[j % BLOCK] += weight;
            }
            let factor = softmax::normaliser(softmax::total(&sums));
            assert_eq!(bits(&[factors[row]]), bits(&[factor]), "factor of {len} settled");
        }

        let scaled = tile;
        K::scale_rows(&mut MatrixMut::new(scaled, 3, len, stride), &[0.37, 0.0, -2.0]);
        for (row, by) in [0.37, 0.0, -2.0].into_iter().enumerate() {
            for x in &mut expected[row * stride..][..len] {
                *x = if by == 0.0 { 0.0 } else { *x * by };
            }
        }
        assert_eq!(bits(scaled), bits(&expected), "scaled {len}");
    }
}

/// Weights of one row against a maximum.
fn weigh<K: Kernel>(row: &mut [f32], m: f32, sums: &mut [f32; BLOCK]) {
    let len = row.len();
    let mut tile = MatrixMut::new(row, 1, len, len);
    let sums = core::slice::from_mut(sums);
    K::advance(&mut tile, &[f32::NEG_INFINITY], &mut [m], sums, None, false);
}

/// The weight of one logit, in plain operations.
fn weight(fused: bool, l: f32, m: f32) -> f32 {
    let n = l.round_ties_even();
    let f = l - n;
    let p = EXP2.iter().rev().skip(1).fold(EXP2[6], |p, &c| mul_add(fused, p, f, c));
    if n - m < -125.0 { 0.0 } else { p * (n - m).exp2() }
}

/// Where a weight vanishes, and what is never one: the edges that random rows do not meet.
fn check_edges<K: Kernel>(fused: bool) {
    let edges = [-124.5, -125.0, -125.4, -125.5, -125.6, -126.0, -127.0, f32::NEG_INFINITY];
    for len in [edges.len(), BLOCK, BLOCK + edges.len()] {
        let row: Vec<f32> = edges.iter().copied().cycle().take(len).collect();
        let mut weights = row.clone();
        weigh::<K>(&mut weights, 0.0, &mut [0.0; BLOCK]);
        for (&l, &got) in row.iter().zip(&weights) {
            assert_eq!(got.to_bits(), weight(fused, l, 0.0).to_bits(), "2^{l} of {len}");
        }
        let mut row = vec![0.0; len];
        row[len - 1] = f32::NAN;
        let mut sums = [0.0; BLOCK];
        weigh::<K>(&mut row, 0.0, &mut sums);
        assert!(
            row[len - 1].is_nan() && sums[(len - 1) % BLOCK].is_nan(),
            "NaN at the end of {len}"
        );
    }
}

struct CheckAll {
    fused: bool,
}

impl Task for CheckAll {
    type Output = ();

    fn run<K: Kernel>(self) {
        let memory = &mut Memory::new();
        check_products::<K>(self.fused, memory);
        check_blocks::<K>();
        check_turns::<K>(memory);
        check_differentiate::<K>(memory);
        check_rows::<K>(self.fused, Edge::End, memory);
        check_rows::<K>(self.fused, Edge::Start, memory);
        check_edges::<K>(self.fused);
    }
}

#[test]
fn every_kernel_equals_plain_loops() {
    for isa in Isa::available() {
        isa.run(CheckAll { fused: isa.is_fused() });
        std::println!("checked {}", isa.name());
    }
}

/// What lets the kernels use pointers: a view is in bounds up to its last element, and not beyond.
#[test]
fn views_know_their_last_element() {
    let data = &mut [0.0; 400][..];
    for (rows, columns) in [(1, 1), (3, 5), (2, 16), (2, 17), (3, 31), (1, 32), (2, 33)] {
        for (row_stride, block_stride, column_stride) in
            [(40, 16, 1), (1, 64, 4), (16, 48, 1), (16, 0, 1), (0, 16, 1)]
        {
            let of = |j: usize| j / BLOCK * block_stride + j % BLOCK * column_stride;
            let furthest = (0..columns).map(of).max().unwrap_or(0) + (rows - 1) * row_stride;
            for (len, expected) in [(furthest, false), (furthest + 1, true)] {
                let what = std::format!("{rows}×{columns}, {row_stride} {block_stride}, {len}");
                let data = &mut data[..len];
                let b = Columns { data, rows, columns, row_stride, block_stride, column_stride };
                assert_eq!(b.in_bounds(), expected, "right {what}");
            }
            let last = (rows - 1) * row_stride + columns - 1;
            for (len, expected) in [(last, false), (last + 1, true)] {
                let data = &mut data[..len];
                let a = Matrix { data, rows, columns, row_stride };
                assert_eq!(a.in_bounds(), expected, "left {rows}×{columns}, {row_stride}, {len}");
                let c = MatrixMut::new(data, rows, columns, row_stride);
                assert_eq!(c.in_bounds(), expected, "result {rows}×{columns}, {row_stride}, {len}");
            }
        }
    }
}

/// The law's fine print, which every way through the driver shares and so cannot contradict: the
/// tree of the sums, the maximum of an integer, and where a shifted weight is flushed.
#[test]
fn the_numbers_of_the_softmax_are_those_of_the_law() {
    // Adding 1 to 2^24 leaves it; the tree decides which ones meet first.
    let mut sums = [0.0; BLOCK];
    (sums[0], sums[2], sums[1], sums[3]) = (16_777_216.0, 1.0, 1.0, 1.0);
    assert_eq!(softmax::total(&sums), 16_777_218.0);
    (sums[0], sums[2], sums[1], sums[3]) = (16_777_216.0, 0.0, 1.0, 1.0);
    assert_eq!(softmax::total(&sums), 16_777_218.0);
    (sums[0], sums[2], sums[1], sums[3]) = (16_777_216.0, 1.0, 1.0, 0.0);
    assert_eq!(softmax::total(&sums), 16_777_216.0);

    for (x, ceiling) in [(3.0, 3.0), (3.25, 4.0), (-3.0, -3.0), (-3.75, -3.0), (0.0, 0.0)] {
        assert_eq!(softmax::ceil(x), ceiling, "{x}");
    }
    let odd = 8_388_609.0;
    assert_eq!((softmax::round(odd), softmax::ceil(-odd)), (odd, -odd));

    let mut weight = 1.0;
    softmax::shift_weight(&mut weight, f32::MIN_POSITIVE);
    assert_eq!(weight, f32::MIN_POSITIVE);
    softmax::shift_weight(&mut weight, 0.5);
    assert_eq!(weight.to_bits(), 0);
}

/// A probability is met exactly: a draw that equals it survives, the next smaller one does not.
#[test]
fn dropout_decides_at_its_probability() {
    for seed in 0..20u64 {
        let draw = dropout::philox4x32([0, 7, 2, 1], [seed as u32, 0])[0] >> 8;
        for (threshold, survives) in [(draw, true), (draw + 1, false)] {
            let mut score = [1.0];
            let dropout = Dropout::new(threshold as f32 / 16_777_216.0, seed);
            dropout.row(1, 2, 7).expect("it drops").apply(0, &mut score);
            assert_eq!(score[0] > 0.0, survives, "seed {seed}");
        }
    }
}

/// Weights of many logits at once, by the kernel itself.
struct Weights<'a> {
    logits: &'a mut [f32],
}

impl Task for Weights<'_> {
    type Output = ();

    fn run<K: Kernel>(self) {
        weigh::<K>(self.logits, 0.0, &mut [0.0; BLOCK]);
    }
}

/// The exponential over every float that it can meet: all logits from 0 down to where a weight
/// vanishes, and on to −∞. The fraction, and with it the polynomial, takes every value it can take.
#[test]
fn the_exponential_is_within_two_ulps_of_doubles_for_every_float() {
    // Exhaustive where the code is optimised; a sample of one in 97 where it is not.
    let step: usize = if cfg!(debug_assertions) { 97 } else { 1 };
    for isa in Isa::available() {
        // Kernels of a family have the same bits, which another test sees to.
        if isa != Isa::PORTABLE && isa != Isa::detect() {
            continue;
        }
        let mut worst = 0.0f64;
        let mut bits = (0x8000_0000u32..=0xff80_0000).step_by(step);
        let mut logits = vec![0.0f32; 4096];
        let mut weights = logits.clone();
        loop {
            let mut count = 0;
            for (l, bits) in logits.iter_mut().zip(&mut bits) {
                *l = f32::from_bits(bits);
                count += 1;
            }
            if count == 0 {
                break;
            }
            weights.copy_from_slice(&logits);
            isa.run(Weights { logits: &mut weights });
            for (&l, &w) in logits.iter().zip(&weights).take(count) {
                if l.round_ties_even() < -125.0 {
                    assert_eq!(w.to_bits(), 0, "2^{l}");
                    continue;
                }
                assert!(w.is_normal(), "2^{l} = {w}");
                // Far below the ulp of 1 the exponential is 1 + l·ln 2.
                let exact = if l > -1e-9 {
                    1.0 + f64::from(l) * core::f64::consts::LN_2
                } else {
                    f64::from(l).exp2()
                };
                // Half a step below a power of two counts as a step of the binade that w is in.
                let ulp =
                    f64::from(f32::from_bits((exact as f32).to_bits() & 0x7f80_0000)) / 8_388_608.0;
                worst = worst.max((f64::from(w) - exact).abs() / ulp);
            }
        }
        std::println!("{}: {worst:.3} ulp", isa.name());
        assert!(worst <= 2.0, "{}: {worst} ulp", isa.name());
        // A worst case of less than the rounding of the last step would mean that nothing ran.
        assert!(worst > 0.5);
    }
}
