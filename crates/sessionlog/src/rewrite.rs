//! Removes rows on purpose, such as for a request under data protection law.
//!
//! A file never changes, so the rows that stay are written to a new file, column by column as they are. The new file is
//! durable before the old one is removed, and its name says which one it replaces, so that a crash between the two doubles no
//! row.

use std::sync::Arc;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;

use crate::decode::Decoder;
use crate::encode::{MISSED, REACHES, properties};
use crate::row::MILLI_NS;
use crate::tree::{LogFile, LogTree};
use base::packet::InterfaceId;
use base::time::Timestamp;
use query::logged::LoggedSession;

/// The result of a removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowRemoval {
    /// Rows that were removed.
    pub rows: u64,
    /// Files that were written anew.
    pub rewritten: u64,
    /// Files that were removed because no row was left.
    pub removed: u64,
    /// Paths of the files that are there no more, or were written anew.
    pub changed: Vec<String>,
    /// Files that are damaged, or could not be rewritten, each with the reason. Their rows stay.
    pub failed: Vec<(String, String)>,
}

/// Removes the rows of sessions that `matches` selects. A file that is damaged does not keep others from being rewritten.
///
/// # Errors
///
/// If a directory cannot be read.
pub fn remove_rows(
    tree: &Arc<LogTree>,
    now: Timestamp,
    matches: &mut dyn FnMut(&LoggedSession) -> bool,
) -> Result<RowRemoval, ParquetError> {
    let mut removal = RowRemoval::default();
    tree.remove_unfinished()?;
    tree.remove_replaced()?;
    for (number, file) in (1..).zip(tree.list()?) {
        // Two new files of one hour must not have the same name.
        let created_ms = (now.0 / MILLI_NS).max(file.created_ms) + number;
        if let Err(error) = remove_from(tree, &file, created_ms, matches, &mut removal) {
            removal.failed.push((file.path.clone(), error.to_string()));
        }
    }
    Ok(removal)
}

fn remove_from(
    tree: &Arc<LogTree>,
    file: &LogFile,
    created_ms: u64,
    matches: &mut dyn FnMut(&LoggedSession) -> bool,
    removal: &mut RowRemoval,
) -> Result<(), ParquetError> {
    let mut stays = Vec::new();
    Decoder::open(tree.read(file)?)?.read((i64::MIN, i64::MAX), &mut |parts| {
        stays.push(parts.session(&|_| InterfaceId(0)).is_none_or(|session| !matches(&session)));
        true
    })?;
    let found = stays.iter().filter(|stays| !**stays).count();
    if found == 0 {
        return Ok(());
    }
    let has_others = found < stays.len();
    if has_others {
        rewrite(tree, file, created_ms, &stays)?;
    }
    tree.remove(file)?;
    removal.changed.push(file.path.clone());
    removal.rows += found as u64;
    removal.rewritten += u64::from(has_others);
    removal.removed += u64::from(!has_others);
    Ok(())
}

fn rewrite(tree: &Arc<LogTree>, file: &LogFile, created_ms: u64, stays: &[bool]) -> Result<(), ParquetError> {
    let reader = SerializedFileReader::new(tree.read(file)?)?;
    let metadata = reader.metadata().file_metadata();
    let out = tree.create_in_place_of(Some(file), file.hour, created_ms)?;
    let schema = metadata.schema_descr().root_schema_ptr();
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties()?))?;
    let mut left = stays;
    for number in 0..reader.num_row_groups() {
        let rows = usize::try_from(reader.metadata().row_group(number).num_rows()).unwrap_or(0);
        let group = reader.get_row_group(number)?;
        let (stays, rest) = left.split_at(rows.min(left.len()));
        left = rest;
        if !stays.contains(&true) {
            continue;
        }
        let mut to = writer.next_row_group()?;
        let mut column = 0;
        while let Some(mut out) = to.next_column()? {
            match group.get_column_reader(column)? {
                ColumnReader::ByteArrayColumnReader(reader) => {
                    copy::<ByteArrayType>(reader, out.typed::<ByteArrayType>(), stays)?;
                }
                ColumnReader::Int32ColumnReader(reader) => {
                    copy::<Int32Type>(reader, out.typed::<Int32Type>(), stays)?;
                }
                ColumnReader::Int64ColumnReader(reader) => {
                    copy::<Int64Type>(reader, out.typed::<Int64Type>(), stays)?;
                }
                _ => return Err(ParquetError::General(format!("column {column} has another type"))),
            }
            out.close()?;
            column += 1;
        }
        to.close()?;
    }
    let stated = metadata.key_value_metadata().into_iter().flatten();
    for KeyValue { key, value } in stated.filter(|pair| [MISSED, REACHES].contains(&pair.key.as_str())) {
        writer.append_key_value_metadata(KeyValue::new(key.clone(), value.clone()));
    }
    writer.into_inner()?.finish()?;
    Ok(())
}

fn copy<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    writer: &mut ColumnWriterImpl<'_, T>,
    stays: &[bool],
) -> Result<(), ParquetError> {
    let (mut levels, mut values, mut read) = (Vec::new(), Vec::new(), 0);
    while read < stays.len() {
        let (records, ..) = reader.read_records(stays.len() - read, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::EOF("a column has too few rows".to_owned()));
        }
        read += records;
    }
    let mut values = values.into_iter();
    let (mut kept_levels, mut kept) = (Vec::new(), Vec::new());
    for (level, stays) in levels.into_iter().zip(stays) {
        let value = if level > 0 { values.next() } else { None };
        if *stays {
            kept_levels.push(level);
            kept.extend(value);
        }
    }
    writer.write_batch(&kept, Some(&kept_levels), None)?;
    Ok(())
}
