//! Views of matrices in slices: where element (row, column) lies, checked once at the door so that
//! the kernels behind it can use pointers.

/// A left operand: element (i, k) lies at `i · row_stride + k`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
}

impl<'a> Matrix<'a> {
    /// One row; nothing where there is no such row.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        self.part(row, 0, self.columns)
    }

    /// `count` elements of a row from `column` on; nothing where there are not as many.
    pub(crate) fn part(&self, row: usize, column: usize, count: usize) -> &'a [f32] {
        let at = row * self.row_stride + column;
        self.data.get(at..at + count).unwrap_or_default()
    }

    pub(super) fn in_bounds(&self) -> bool {
        in_rows(self.data.len(), self.rows, self.row_stride, self.columns)
    }
}

/// A right operand, its columns in blocks of sixteen: element (k, j) lies at
/// `k · row_stride + (j / 16) · block_stride + (j % 16) · column_stride`.
///
/// A row-major matrix has a column stride of 1 and a block stride of 16; its transpose has a row
/// stride of 1.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) block_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Columns<'a> {
    /// A matrix whose columns lie at one stride.
    pub(crate) fn strided(
        data: &'a [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Self {
        Self { data, rows, columns, row_stride, block_stride: 16 * column_stride, column_stride }
    }

    pub(super) fn in_bounds(&self) -> bool {
        in_blocks(
            self.data.len(),
            self.rows,
            self.row_stride,
            self.columns,
            self.block_stride,
            self.column_stride,
        )
    }
}

/// A result, row-major: element (i, j) lies at `i · row_stride + j`; that of a product may lie in
/// blocks of columns, at `i · row_stride + (j / block) · block_stride + j % block`.
pub(crate) struct MatrixMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    /// Columns of a block; 0 where all lie side by side.
    pub(crate) block: usize,
    pub(crate) block_stride: usize,
}

impl<'a> MatrixMut<'a> {
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, block: 0, block_stride: 0 }
    }

    /// Puts its columns into blocks.
    pub(crate) fn in_blocks(self, block: usize, block_stride: usize) -> Self {
        Self { block, block_stride, ..self }
    }

    /// Where a column lies in its row, and how many lie side by side from there on.
    pub(super) fn column(&self, j: usize) -> (usize, usize) {
        match (j.checked_div(self.block), j.checked_rem(self.block)) {
            (Some(block), Some(inside)) => {
                let left = (self.block - inside).min(self.columns - j);
                (block * self.block_stride + inside, left)
            }
            _ => (j, self.columns - j),
        }
    }

    /// One row; nothing where there is no such row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        let at = row * self.row_stride;
        self.data.get(at..at + self.columns).unwrap_or_default()
    }

    /// One row; nothing where there is no such row.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let at = row * self.row_stride;
        self.data.get_mut(at..at + self.columns).unwrap_or_default()
    }

    pub(super) fn in_bounds(&self) -> bool {
        let Some(last) = self.columns.checked_sub(1).filter(|_| self.block > 0) else {
            return in_rows(self.data.len(), self.rows, self.row_stride, self.columns);
        };
        // The end of the last block, or of a full block before it, whichever lies further.
        let (block, inside) = (last / self.block.max(1), last % self.block.max(1));
        let end = block.saturating_mul(self.block_stride).saturating_add(inside + 1);
        let before = block.saturating_sub(1).saturating_mul(self.block_stride);
        let full = if block > 0 { before.saturating_add(self.block) } else { 0 };
        in_rows(self.data.len(), self.rows, self.row_stride, end.max(full))
    }
}

/// What a product adds to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing: the result is overwritten.
    Zero,
    /// What stands in the result.
    Keep,
    /// A bias for each column.
    Columns(&'a [f32]),
}

/// Whether the last element of a row-major matrix lies inside its slice.
fn in_rows(len: usize, rows: usize, row_stride: usize, columns: usize) -> bool {
    let (Some(row), Some(column)) = (rows.checked_sub(1), columns.checked_sub(1)) else {
        return true;
    };
    row.saturating_mul(row_stride).saturating_add(column) < len
}

fn in_blocks(
    len: usize,
    rows: usize,
    row_stride: usize,
    columns: usize,
    block_stride: usize,
    column_stride: usize,
) -> bool {
    let (Some(row), Some(column)) = (rows.checked_sub(1), columns.checked_sub(1)) else {
        return true;
    };
    // The last element of the last block, or of a full block before it, whichever lies further.
    let block = (column / 16).saturating_mul(block_stride);
    let inside = (column % 16).saturating_mul(column_stride);
    let before = if column >= 16 {
        (column / 16 - 1)
            .saturating_mul(block_stride)
            .saturating_add(15usize.saturating_mul(column_stride))
    } else {
        0
    };
    let furthest = block.saturating_add(inside).max(before);
    row.saturating_mul(row_stride).saturating_add(furthest) < len
}
