//! Commands that read and write records.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde_json::json;
use sync_core::model::{RecordKey, Value};

use crate::cli::args::Address;
use crate::cli::exit::{CliError, Exit};
use crate::cli::input::{Input, Seen, check_size, parse_change, parse_record};
use crate::cli::output::{Output, count, record_json, shown};
use crate::cli::{Device, context, parse_key};

pub(super) fn put(device: &mut Device, output: &Output, at: &Address, value: &str) -> Result<Exit, CliError> {
    let address = device.address(&at.dataset)?;
    let key = parse_key(&at.key)?;
    let value = match value {
        "-" => {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text)?;
            parse_value(&text)?
        }
        json => parse_value(json)?,
    };
    device.db.write(&address, vec![(key.clone(), Some(value))], context!())?;
    let sentence = format!("wrote `{}`; `sync` pushes it", shown(&key));
    output.answer(&sentence, &json!({"dataset": address.dataset.as_str(), "key": key.as_str()}))?;
    Ok(Exit::Success)
}

pub(super) fn parse_value(json: &str) -> Result<Value, CliError> {
    Value::parse_json(json).map_err(|error| CliError::Usage(error.to_string()))
}

pub(super) fn get(device: &mut Device, at: &Address) -> Result<Exit, CliError> {
    let address = device.address(&at.dataset)?;
    let key = parse_key(&at.key)?;
    let value = device.db.get(&address, &key)?.ok_or_else(|| absent(at))?;
    // The value is JSON in both forms of the output.
    let mut out = Output::stream();
    writeln!(out, "{}", value.to_json())?;
    out.flush()?;
    Ok(Exit::Success)
}

fn absent(at: &Address) -> CliError {
    CliError::NotFound(format!("`{}` has no record `{}` on this device", at.dataset, at.key))
}

pub(super) fn remove(device: &mut Device, output: &Output, at: &Address) -> Result<Exit, CliError> {
    let address = device.address(&at.dataset)?;
    let key = parse_key(&at.key)?;
    if device.db.get(&address, &key)?.is_none() {
        return Err(absent(at));
    }
    device.db.write(&address, vec![(key.clone(), None)], context!())?;
    let sentence = format!("removed `{}`; `sync` pushes it", shown(&key));
    output.answer(&sentence, &json!({"dataset": address.dataset.as_str(), "key": key.as_str()}))?;
    Ok(Exit::Success)
}

pub(super) fn list(
    device: &mut Device,
    output: &Output,
    dataset: &str,
    prefix: &str,
    limit: Option<usize>,
) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let mut out = Output::stream();
    let mut left = limit.unwrap_or(usize::MAX);
    let mut after = None;
    let mut separator = "[";
    while left > 0 {
        let page = device.db.list(&address, prefix, after.as_ref(), left.min(LIST_PAGE))?;
        let Some((last, _)) = page.last() else { break };
        left -= page.len();
        after = Some(last.clone());
        for (key, value) in page {
            if output.is_json() {
                write!(out, "{separator}{}", record_json(&key, &value))?;
                separator = ",\n";
            } else {
                writeln!(out, "{}\t{}", shown(&key), value.to_json())?;
            }
        }
    }
    if output.is_json() {
        writeln!(out, "{}]", if separator == "[" { "[" } else { "" })?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// Records read at once while listing.
const LIST_PAGE: usize = 1_000;

pub(super) fn export(device: &mut Device, dataset: &str) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let mut out = Output::stream();
    // The lines are JSON in both forms of the output.
    device.db.for_each(&address, "", |key, value| -> Result<(), CliError> {
        Ok(writeln!(out, "{}", record_json(&key, &value))?)
    })?;
    out.flush()?;
    Ok(Exit::Success)
}

pub(super) fn import(
    device: &mut Device,
    output: &Output,
    dataset: &str,
    file: &Path,
    field: &str,
) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let (limits, _) = device.db.limits()?;
    let mut input = Input::open(file)?;
    // All of it is checked before any of it is written.
    let mut seen = Seen::default();
    let mut total = 0;
    input.records(&mut |number, json| {
        let (key, value) = parse_record(number, json, field)?;
        check_size(number, &value, &limits)?;
        total = number;
        seen.insert(number, &key)
    })?;
    drop(seen);

    let progress = output.progress(Some(total), "importing");
    let mut batch: Vec<Vec<(RecordKey, Option<Value>)>> = Vec::with_capacity(IMPORT_BATCH);
    let mut written = 0;
    let mut write = |batch: &mut Vec<Vec<_>>| -> Result<(), CliError> {
        let records = batch.len() as u64;
        let result = device.db.write_many(&address, batch.drain(..), context!());
        result.map_err(|error| match CliError::from(error) {
            CliError::Failed(message) => {
                let done = count(written, "record");
                CliError::Failed(format!("{message}; {done} of {total} were written, import the file again"))
            }
            error => error,
        })?;
        written += records;
        progress.set_position(written);
        Ok(())
    };
    input.records(&mut |number, json| {
        let (key, value) = parse_record(number, json, field)?;
        batch.push(vec![(key, Some(value))]);
        if batch.len() == IMPORT_BATCH { write(&mut batch) } else { Ok(()) }
    })?;
    write(&mut batch)?;
    progress.finish_and_clear();
    let sentence = format!("imported {} into `{dataset}`; `sync` pushes what changed", count(total, "record"));
    output.answer(&sentence, &json!({"dataset": dataset, "records": total}))?;
    Ok(Exit::Success)
}

/// Records written in one transaction.
const IMPORT_BATCH: usize = 1_000;

pub(super) fn apply(device: &mut Device, output: &Output, dataset: &str, file: &Path) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let mut writes = Vec::new();
    Input::open(file)?.records(&mut |number, json| {
        writes.push(parse_change(number, json)?);
        Ok(())
    })?;
    let changes = writes.len() as u64;
    device.db.write(&address, writes, context!())?;
    let sentence =
        format!("wrote {} to `{dataset}` as one group; `sync` pushes it whole or not at all", count(changes, "change"));
    output.answer(&sentence, &json!({"dataset": dataset, "changes": changes}))?;
    Ok(Exit::Success)
}
