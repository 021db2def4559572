//! Reads rows from a file.

use std::collections::HashMap;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::statistics::Statistics;

use crate::columns::COLUMNS;
use crate::encode::{MISSED, REACHES, ROWS_MAX};
use crate::parts::Parts;
use crate::value::Value;

/// The most rows of a row group that are read; other programs may have rewritten the files.
const GROUP_ROWS_MAX: usize = 16 * ROWS_MAX;

/// A file that is read.
pub struct Decoder {
    file: Box<dyn FileReader>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// If it is no Parquet file, or its footer is damaged.
    pub fn open<R: ChunkReader + 'static>(reader: R) -> Result<Self, ParquetError> {
        Ok(Self { file: Box::new(SerializedFileReader::new(reader)?) })
    }

    /// Rows of the file.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Sessions that were seen, but are in no row.
    pub fn missed(&self) -> u64 {
        self.stated(MISSED).unwrap_or(0)
    }

    /// The earliest hour of which the file has the only row of a session.
    pub fn reaches(&self) -> Option<u64> {
        self.stated(REACHES)
    }

    fn stated(&self, key: &str) -> Option<u64> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata();
        pairs.into_iter().flatten().find(|pair| pair.key == key)?.value.as_ref()?.parse().ok()
    }

    /// Calls `each` with the rows of every row group that may overlap the window, in milliseconds since the epoch. Ends
    /// early if `each` returns false; this function then does, too.
    ///
    /// # Errors
    ///
    /// If a row group is damaged.
    pub fn read(&self, window_ms: (i64, i64), each: &mut dyn FnMut(Parts) -> bool) -> Result<bool, ParquetError> {
        for number in 0..self.file.num_row_groups() {
            let metadata = self.file.metadata().row_group(number);
            if !overlaps(metadata, window_ms) {
                continue;
            }
            let rows = usize::try_from(metadata.num_rows()).unwrap_or(usize::MAX);
            if rows > GROUP_ROWS_MAX {
                return Err(ParquetError::General(format!("a row group has {rows} rows")));
            }
            let group = self.file.get_row_group(number)?;
            if !rows_of(&*group, rows)?.into_iter().all(&mut *each) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether sessions of a row group may overlap the window, by the statistics of their times.
fn overlaps(group: &RowGroupMetaData, (since, until): (i64, i64)) -> bool {
    let times = |name: &str| {
        let column = group.columns().iter().find(|column| column.column_path().string() == name)?;
        match column.statistics()? {
            Statistics::Int64(times) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    };
    times("event.start").is_none_or(|(first, _)| first <= until)
        && times("event.end").is_none_or(|(_, last)| last >= since)
}

/// The values of all rows of a row group.
fn rows_of(group: &dyn RowGroupReader, rows: usize) -> Result<Vec<Parts>, ParquetError> {
    let mut parts = vec![Parts::default(); rows];
    let sets: HashMap<&str, _> = COLUMNS.iter().filter_map(|column| Some((column.name, column.set?))).collect();
    for (number, column) in group.metadata().columns().iter().enumerate() {
        let Some(set) = sets.get(column.column_path().string().as_str()) else { continue };
        match group.get_column_reader(number)? {
            ColumnReader::ByteArrayColumnReader(reader) => {
                fill::<ByteArrayType>(reader, &mut parts, |parts, value| {
                    set(parts, Value::Text(String::from_utf8_lossy(value.data())));
                })?;
            }
            ColumnReader::Int32ColumnReader(reader) => {
                fill::<Int32Type>(reader, &mut parts, |parts, value| set(parts, Value::Whole((*value).into())))?;
            }
            ColumnReader::Int64ColumnReader(reader) => {
                fill::<Int64Type>(reader, &mut parts, |parts, value| set(parts, Value::Whole(*value)))?;
            }
            _ => return Err(ParquetError::General(format!("the column {} has another type", column.column_path()))),
        }
    }
    Ok(parts)
}

fn fill<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    parts: &mut [Parts],
    mut set: impl FnMut(&mut Parts, &T::T),
) -> Result<(), ParquetError> {
    let mut at = 0;
    let (mut is_there, mut values) = (Vec::new(), Vec::new());
    while at < parts.len() {
        is_there.clear();
        values.clear();
        let (records, ..) = reader.read_records(parts.len() - at, Some(&mut is_there), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::EOF("a column has too few rows".to_owned()));
        }
        let mut next = values.iter();
        for (parts, _) in parts.iter_mut().skip(at).zip(&is_there).filter(|(_, level)| **level > 0) {
            if let Some(value) = next.next() {
                set(parts, value);
            }
        }
        at += records;
    }
    Ok(())
}
