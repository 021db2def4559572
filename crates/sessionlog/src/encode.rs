//! Writes rows as Parquet.
//!
//! Rows are held until a row group is full, and written column by column. So the memory of a writer is that of one row
//! group, and of one column of it as encoded.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::ColumnPath;

use crate::columns::{COLUMNS, Column, Kind, schema};
use crate::row::{Counts, Observer, Row, hour};
use crate::value::Value;

/// Rows of a row group.
pub const ROWS_MAX: usize = 8 << 10;
/// zstd level of the columns.
const LEVEL: i32 = 6;

/// The writer of one file.
pub struct Encoder<W: Write + Send> {
    file: SerializedFileWriter<W>,
    rows: Vec<Row>,
    written: u64,
    /// The earliest hour of which this file has the only row of a session.
    reaches: Option<u64>,
}

impl<W: Write + Send> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("written", &self.written).finish_non_exhaustive()
    }
}

impl<W: Write + Send> Encoder<W> {
    /// A file that is written to `out`.
    ///
    /// # Errors
    ///
    /// If `out` does not take the first bytes.
    pub fn new(out: W) -> Result<Self, ParquetError> {
        let file = SerializedFileWriter::new(out, schema()?, Arc::new(properties()?))?;
        Ok(Self { file, rows: Vec::new(), written: 0, reaches: None })
    }

    /// Rows that were put so far.
    pub fn rows(&self) -> u64 {
        self.written + self.rows.len() as u64
    }

    /// The earliest hour of which the file has the only row of a session, by the rows so far.
    pub(crate) fn reaches(&self) -> Option<u64> {
        self.reaches
    }

    /// Adds a row. Writes a row group when one is full.
    ///
    /// # Errors
    ///
    /// If the medium does not take it. The file must then be given up.
    pub fn put(&mut self, row: Row, observer: &Observer) -> Result<(), ParquetError> {
        if row.earlier == Counts::default() {
            let begun = hour(row.session.first);
            self.reaches = Some(self.reaches.map_or(begun, |reaches| reaches.min(begun)));
        }
        self.rows.push(row);
        if self.rows.len() >= ROWS_MAX { self.write_group(observer) } else { Ok(()) }
    }

    fn write_group(&mut self, observer: &Observer) -> Result<(), ParquetError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.rows);
        // In the order of their starts, times and addresses take fewer bytes, and a reader skips row groups.
        rows.sort_by_key(|row| row.session.first);
        let mut group = self.file.next_row_group()?;
        for column in &COLUMNS {
            let Some(mut writer) = group.next_column()? else { break };
            write_column(&mut writer, column, &rows, observer)?;
            writer.close()?;
        }
        group.close()?;
        self.written += rows.len() as u64;
        rows.clear();
        self.rows = rows;
        Ok(())
    }

    /// Writes the rest and the footer, which states the number of sessions that the log lacks. Returns what the file was
    /// written to.
    ///
    /// # Errors
    ///
    /// If the medium does not take it.
    pub fn finish(mut self, observer: &Observer, missed: u64) -> Result<W, ParquetError> {
        self.write_group(observer)?;
        self.file.append_key_value_metadata(KeyValue::new(MISSED.to_owned(), missed.to_string()));
        if let Some(reaches) = self.reaches {
            self.file.append_key_value_metadata(KeyValue::new(REACHES.to_owned(), reaches.to_string()));
        }
        self.file.into_inner()
    }
}

/// Key of the footer: sessions that were seen, but are in no row.
pub const MISSED: &str = "retrocap.missed";
/// Key of the footer: the earliest hour, in hours since the epoch, of which the file has the only row of a session.
pub const REACHES: &str = "retrocap.reaches";

pub(crate) fn properties() -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("retrocap ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_max_row_group_row_count(Some(ROWS_MAX))
        .set_data_page_row_count_limit(ROWS_MAX)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(32));
    for column in &COLUMNS {
        let path = ColumnPath::new(vec![column.name.to_owned()]);
        match column.name {
            "event.start" | "event.end" => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            // Values that hardly repeat take more bytes with a dictionary.
            // A hash is in every range of values: a small filter tells the row groups that do not have it.
            "network.community_id" => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_bloom_filter_fpp(path.clone(), 0.01)
                    .set_column_bloom_filter_max_ndv(path, ROWS_MAX as u64);
            }
            "source.port" => {
                properties = properties.set_column_dictionary_enabled(path, false);
            }
            _ => {}
        }
    }
    Ok(properties.build())
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    column: &Column,
    rows: &[Row],
    observer: &Observer,
) -> Result<(), ParquetError> {
    let values = || rows.iter().map(|row| (column.get)(row, observer));
    let is_there: Vec<i16> = values().map(|value| i16::from(value != Value::None)).collect();
    let whole = |value| if let Value::Whole(number) = value { Some(number) } else { None };
    match column.kind {
        Kind::Text => {
            let text = |value| if let Value::Text(text) = value { Some(ByteArray::from(&*text)) } else { None };
            let texts: Vec<ByteArray> = values().filter_map(text).collect();
            writer.typed::<ByteArrayType>().write_batch(&texts, Some(&is_there), None)?;
        }
        Kind::Small => {
            let small = |value| whole(value).map(|number| i32::try_from(number).unwrap_or(i32::MAX));
            let numbers: Vec<i32> = values().filter_map(small).collect();
            writer.typed::<Int32Type>().write_batch(&numbers, Some(&is_there), None)?;
        }
        Kind::Time | Kind::Whole => {
            let numbers: Vec<i64> = values().filter_map(whole).collect();
            writer.typed::<Int64Type>().write_batch(&numbers, Some(&is_there), None)?;
        }
    }
    Ok(())
}
