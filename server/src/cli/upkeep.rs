//! Commands about what is declared, pending, lost, parked and asked.

use serde_json::{Value as Json, json};
use sync_core::conflict::{LogEntry, Loss, Parked, Question, Resolution, Side};
use sync_core::device::{DatasetStatus, Which};
use sync_core::merge::replica::Changes;
use sync_core::model::DatasetName;
use sync_core::policy::{OnDelete, Policies, Policy};

use crate::cli::args::{OnDeleteChoice, PolicyChoice};
use crate::cli::exit::{CliError, Exit};
use crate::cli::output::{Output, ago, count, short, shown};
use crate::cli::records::parse_value;
use crate::cli::{Device, context, parse_key};

/// What `policy` is told besides the dataset.
pub(super) struct Declaration {
    pub(super) policy: Option<PolicyChoice>,
    pub(super) prefix: Option<String>,
    pub(super) field: Option<String>,
    pub(super) on_delete: Option<OnDeleteChoice>,
}

pub(super) fn policy(
    device: &mut Device,
    output: &Output,
    dataset: &str,
    declaration: Declaration,
) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let mut policies = device.db.policies(&address)?;
    let Declaration { policy, prefix, field, on_delete } = declaration;
    let changes = policy.is_some() || on_delete.is_some();
    let chosen = policy.map(|choice| match choice {
        PolicyChoice::Default => None,
        PolicyChoice::Is(policy) => Some(policy),
    });
    match (chosen, prefix, field) {
        (None, _, _) => {}
        (Some(chosen), None, None) => policies.dataset = chosen,
        (Some(Some(policy)), Some(prefix), _) => drop(policies.prefixes.insert(prefix, policy)),
        (Some(None), Some(prefix), _) => drop(policies.prefixes.remove(&prefix)),
        (Some(Some(policy)), None, Some(field)) if policy.is_for_fields() => {
            policies.fields.insert(field, policy);
        }
        (Some(Some(policy)), None, Some(_)) => {
            let fit = Policy::ALL.into_iter().filter(|policy| policy.is_for_fields()).map(Policy::name);
            let fit = fit.collect::<Vec<_>>().join(", ");
            return Err(CliError::Usage(format!("a field cannot have the policy {policy}, only one of {fit}")));
        }
        (Some(None), None, Some(field)) => drop(policies.fields.remove(&field)),
    }
    match on_delete {
        Some(OnDeleteChoice::EditWins) => policies.on_delete = OnDelete::EditWins,
        Some(OnDeleteChoice::DeleteWins) => policies.on_delete = OnDelete::DeleteWins,
        None => {}
    }
    if changes {
        device.db.set_policies(&address, policies.clone())?;
    }
    output.answer(&declared(&policies), &to_json(&policies)?)?;
    Ok(Exit::Success)
}

fn declared(policies: &Policies) -> String {
    let Policies { dataset, prefixes, fields, on_delete } = policies;
    let mut lines = vec![match dataset {
        Some(policy) => format!("records: {policy}"),
        None => "records: fields for maps, last_sync_wins for everything else (the default)".to_owned(),
    }];
    lines.extend(prefixes.iter().map(|(prefix, policy)| format!("records with the prefix `{prefix}`: {policy}")));
    lines.extend(fields.iter().map(|(field, policy)| format!("field `{field}`: {policy}")));
    lines.push(format!(
        "when an edit meets a removal: {}",
        match on_delete {
            OnDelete::EditWins => "the edit wins",
            OnDelete::DeleteWins => "the removal wins",
        }
    ));
    lines.join("\n")
}

pub(super) fn status(device: &mut Device, output: &Output) -> Result<Exit, CliError> {
    let id = device.db.device_id()?.to_string();
    let login = device.db.login(&device.owner)?;
    let identity = device.db.identity(&device.owner)?;
    let guest = device.db.guest_owner()?;
    let unclaimed = if guest == device.owner { Vec::new() } else { device.db.datasets(&guest)? };
    let datasets = device.db.datasets(&device.owner)?;

    let mut lines = vec![match &login {
        Some(login) => format!("signed in as {} of {}", login.subject, login.issuer),
        None => "not signed in; what is written now can be taken over later with `claim`".to_owned(),
    }];
    lines.extend(datasets.iter().map(line));
    if datasets.is_empty() {
        lines.push("no datasets yet; `put` makes one, `sync` brings those of the server".to_owned());
    }
    if !unclaimed.is_empty() {
        let waiting = count(unclaimed.len() as u64, "dataset");
        lines.push(format!("{waiting} written before signing in; `claim` takes them over"));
    }
    let json = json!({
        "device": id,
        "owner": device.owner.as_str(),
        "login": login.map(|it| json!({"issuer": it.issuer, "audience": it.audience, "subject": it.subject})),
        "identity": identity.as_ref().map(|it| it.as_str()),
        "unclaimed": unclaimed.len(),
        "datasets": datasets.iter().map(status_json).collect::<Vec<_>>(),
    });
    output.answer(&lines.join("\n"), &json)?;
    Ok(Exit::Success)
}

pub(super) fn datasets(device: &mut Device, output: &Output) -> Result<Exit, CliError> {
    let datasets = device.db.datasets(&device.owner)?;
    let lines: Vec<String> = datasets.iter().map(line).collect();
    output.answer(&lines.join("\n"), &datasets.iter().map(status_json).collect())?;
    Ok(Exit::Success)
}

fn line(status: &DatasetStatus) -> String {
    let mut parts = vec![format!("{}: {}", status.name, count(status.records, "record"))];
    if status.deleting {
        parts.push("deleted, `sync` tells the server".to_owned());
    }
    if status.pending_records > 0 {
        parts.push(format!("{} to push", count(status.pending_records, "change")));
    }
    if status.questions > 0 {
        parts.push(format!("{} for `resolve`", count(status.questions, "question")));
    }
    if status.parked > 0 {
        parts.push(format!("{} in `parked`", count(status.parked, "refused group")));
    }
    if status.conflicts > 0 {
        let entries = if status.conflicts == 1 { "entry" } else { "entries" };
        parts.push(format!("{} {entries} in `conflicts`", status.conflicts));
    }
    parts.push(match status.last_synced {
        _ if status.local_only => "never synced".to_owned(),
        Some(at) => format!("synced {}", ago(at)),
        None => "not synced yet".to_owned(),
    });
    parts.join(", ")
}

fn status_json(status: &DatasetStatus) -> Json {
    let DatasetStatus {
        name,
        records,
        pending_groups,
        pending_records,
        parked,
        questions,
        conflicts,
        cursor,
        last_synced,
        deleting,
        in_flight,
        pulling,
        local_only,
    } = status;
    json!({
        "name": name.as_str(),
        "records": records,
        "pending_groups": pending_groups,
        "pending_records": pending_records,
        "parked": parked,
        "questions": questions,
        "conflicts": conflicts,
        "sync_count": cursor.map(|cursor| cursor.count.0),
        "last_synced": last_synced.map(|at| at.0),
        "deleting": deleting,
        "in_flight": in_flight,
        "pulling": pulling,
        "local_only": local_only,
    })
}

pub(super) fn conflicts(device: &mut Device, output: &Output, dataset: &str) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let mut entries: Vec<(u64, LogEntry)> = Vec::new();
    loop {
        let after = entries.last().map(|(id, _)| *id);
        let page = device.db.conflicts(&address, after, PAGE)?;
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    let mut lines = Vec::new();
    for (id, LogEntry { at, cause, losses }) in &entries {
        lines.push(format!("{id}: {}, {}", cause.name(), ago(*at)));
        lines.extend(losses.iter().map(lost));
    }
    match entries.last() {
        Some((id, _)) => {
            lines.push(format!("`restore {dataset} {id}` writes a value back, `conflicts {dataset} --clear` forgets"));
        }
        None => lines.push(format!("nothing of `{dataset}` lost in a conflict")),
    }
    let json: Result<Vec<Json>, CliError> = entries.iter().map(|(id, entry)| entry_json(*id, entry)).collect();
    output.answer(&lines.join("\n"), &Json::Array(json?))?;
    Ok(Exit::Success)
}

/// Entries read at once while listing.
const PAGE: usize = 1_000;

fn lost(loss: &Loss) -> String {
    let Loss { key, path, side, under: _, value } = loss;
    let whose = match side {
        Side::Local => "of this device",
        Side::Remote => "of another device",
    };
    let field = if path.is_empty() { String::new() } else { format!(", field {}", path.join("/")) };
    format!("   {}{field}: {} {whose}", shown(key), short(value.as_ref()))
}

fn entry_json(id: u64, entry: &LogEntry) -> Result<Json, CliError> {
    let LogEntry { at, cause, losses } = entry;
    Ok(json!({"id": id, "at": at.0, "cause": cause.name(), "losses": to_json(losses)?}))
}

pub(super) fn clear_conflicts(device: &mut Device, output: &Output, dataset: &str) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    device.db.clear_conflicts(&address)?;
    output.answer(&format!("the conflict log of `{dataset}` is empty"), &json!({"dataset": dataset}))?;
    Ok(Exit::Success)
}

pub(super) fn restore(device: &mut Device, output: &Output, dataset: &str, id: u64) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    device.db.restore(&address, id, context!())?;
    let entry = device.db.conflicts(&address, id.checked_sub(1), 1)?.pop();
    let losses = entry.map(|(_, entry)| entry.losses).unwrap_or_default();
    let outdone: Vec<&Loss> = losses.iter().filter(|loss| is_outdone(loss, &losses)).collect();
    let mut lines = vec![format!("wrote what entry {id} had lost; `sync` pushes it")];
    if !outdone.is_empty() {
        lines.push("both sides had lost a value, and this device's was written; the other is:".to_owned());
        lines.extend(outdone.iter().map(|loss| lost(loss)));
    }
    output.answer(&lines.join("\n"), &json!({"dataset": dataset, "id": id, "not_written": to_json(&outdone)?}))?;
    Ok(Exit::Success)
}

/// Whether a loss is another device's value of a record of which this device lost a value in the same entry.
fn is_outdone(loss: &Loss, losses: &[Loss]) -> bool {
    let is_whole = |loss: &Loss, side| loss.side == side && loss.path.is_empty();
    is_whole(loss, Side::Remote) && losses.iter().any(|it| is_whole(it, Side::Local) && it.key == loss.key)
}

pub(super) fn questions(device: &mut Device, output: &Output, dataset: &str) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let questions = device.db.questions(&address)?;
    let mut lines = Vec::new();
    for Question { key, base, local, remote, remote_count: _ } in &questions {
        lines.push(shown(key));
        for (whose, value) in [("before", base), ("local ", local), ("remote", remote)] {
            lines.push(format!("   {whose}  {}", short(value.as_ref())));
        }
    }
    match questions.first() {
        Some(question) => {
            lines.push(format!("answer with `resolve {dataset} {} local|remote|remove|JSON`", shown(&question.key)));
        }
        None => lines.push(format!("`{dataset}` has no open question")),
    }
    let json: Result<Vec<Json>, CliError> = questions.iter().map(question_json).collect();
    output.answer(&lines.join("\n"), &Json::Array(json?))?;
    Ok(Exit::Success)
}

fn question_json(question: &Question) -> Result<Json, CliError> {
    let Question { key, base, local, remote, remote_count: _ } = question;
    let mut json = json!({"key": key.as_str()});
    // What is absent is left out, because null is a value.
    for (name, value) in [("base", base), ("local", local), ("remote", remote)] {
        if let Some(value) = value {
            json[name] = to_json(value)?;
        }
    }
    Ok(json)
}

pub(super) fn resolve(
    device: &mut Device,
    output: &Output,
    dataset: &str,
    key: &str,
    answer: &str,
) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    let key = parse_key(key)?;
    let resolution = parse_answer(answer)?;
    let questions = device.db.questions(&address)?;
    let Some(question) = questions.into_iter().find(|question| question.key == key) else {
        return Err(CliError::NotFound(format!("there is no open question about `{}`", shown(&key))));
    };
    let Changes { keys, many: _ } = device.db.resolve(&address, &question, resolution, context!())?;
    // What was written together stays together: a change that is given up takes the others of its group with it.
    let with_it: Vec<_> = keys.iter().filter(|changed| **changed != key).collect();
    let mut sentence = format!("answered the question about `{}`; `sync` pushes it", shown(&key));
    if !with_it.is_empty() {
        let keys = with_it.iter().map(|key| shown(key)).collect::<Vec<_>>().join(", ");
        sentence = format!("{sentence}\ngiven up with it: {keys}; `conflicts {dataset}` lists what was written there");
    }
    let with_it: Vec<&str> = with_it.iter().map(|key| key.as_str()).collect();
    output.answer(&sentence, &json!({"dataset": dataset, "key": key.as_str(), "given_up": with_it}))?;
    Ok(Exit::Success)
}

fn parse_answer(answer: &str) -> Result<Resolution, CliError> {
    Ok(match answer {
        "local" => Resolution::KeepLocal,
        "remote" => Resolution::KeepRemote,
        "remove" => Resolution::Value(None),
        json => Resolution::Value(Some(parse_value(json)?)),
    })
}

pub(super) fn parked(device: &mut Device, output: &Output, dataset: Option<&str>) -> Result<Exit, CliError> {
    let mut lines = Vec::new();
    let mut json = Vec::new();
    for name in with_parked(device, dataset)? {
        let address = device.address_of(name.clone());
        let mut after = None;
        loop {
            let page = device.db.parked(&address, after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (id, unit) in page {
                let Parked { at, code, message, patches, steps: _ } = &unit;
                lines.push(format!("{name} {id}: {code}, {message}, {}", ago(*at)));
                for patch in patches {
                    lines.push(format!("   {}: {}", shown(&patch.key), short(patch.value.as_ref())));
                }
                json.push(json!({
                    "dataset": name.as_str(),
                    "id": id,
                    "at": at.0,
                    "code": code,
                    "message": message,
                    "keys": patches.iter().map(|patch| patch.key.as_str()).collect::<Vec<_>>(),
                    "patches": to_json(patches)?,
                }));
            }
        }
    }
    lines.push(if json.is_empty() {
        "nothing is parked".to_owned()
    } else {
        "`retry DATASET ID` sends it again, `discard DATASET ID` gives it up; a record may be `put` anew first"
            .to_owned()
    });
    output.answer(&lines.join("\n"), &Json::Array(json))?;
    Ok(Exit::Success)
}

pub(super) fn retry(
    device: &mut Device,
    output: &Output,
    dataset: Option<&str>,
    id: Option<u64>,
) -> Result<Exit, CliError> {
    let which = id.map_or(Which::All, Which::One);
    let parked = parked_count(device, dataset, which)?;
    for name in with_parked(device, dataset)? {
        let address = device.address_of(name);
        device.db.retry(&address, which, context!())?;
    }
    let sentence = format!("{} will be sent again with the next `sync`", count(parked, "parked group"));
    output.answer(&sentence, &json!({"retried": parked}))?;
    Ok(Exit::Success)
}

pub(super) fn discard(
    device: &mut Device,
    output: &Output,
    dataset: Option<&str>,
    id: Option<u64>,
) -> Result<Exit, CliError> {
    let which = id.map_or(Which::All, Which::One);
    let parked = parked_count(device, dataset, which)?;
    for name in with_parked(device, dataset)? {
        let address = device.address_of(name);
        device.db.discard(&address, which)?;
    }
    output.answer(&format!("gave up {}", count(parked, "parked group")), &json!({"discarded": parked}))?;
    Ok(Exit::Success)
}

/// The named dataset, or all that have something parked.
fn with_parked(device: &mut Device, dataset: Option<&str>) -> Result<Vec<DatasetName>, CliError> {
    if let Some(dataset) = dataset {
        return Ok(vec![DatasetName::parse(dataset)?]);
    }
    let datasets = device.db.datasets(&device.owner)?;
    Ok(datasets.into_iter().filter(|status| status.parked > 0).map(|status| status.name).collect())
}

fn parked_count(device: &mut Device, dataset: Option<&str>, which: Which) -> Result<u64, CliError> {
    if matches!(which, Which::One(_)) {
        return Ok(1);
    }
    let datasets = device.db.datasets(&device.owner)?;
    let meant = |status: &&DatasetStatus| dataset.is_none_or(|dataset| dataset == status.name.as_str());
    Ok(datasets.iter().filter(meant).map(|status| status.parked).sum())
}

pub(super) fn delete(device: &mut Device, output: &Output, dataset: &str) -> Result<Exit, CliError> {
    let address = device.address(dataset)?;
    if !device.db.datasets(&device.owner)?.iter().any(|status| status.name == address.dataset) {
        return Err(CliError::NotFound(format!("this device has no dataset `{dataset}`")));
    }
    device.db.delete_dataset(&address)?;
    let sentence = format!("deleted `{dataset}` here; `sync` deletes it everywhere");
    output.answer(&sentence, &json!({"dataset": dataset}))?;
    Ok(Exit::Success)
}

pub(super) fn claim(device: &mut Device, output: &Output) -> Result<Exit, CliError> {
    let guest = device.db.guest_owner()?;
    if device.owner == guest {
        return Err(CliError::NotSignedIn("sign in to claim: pass --token or --token-file, expired or not".into()));
    }
    let claimed = device.db.claim(&guest, &device.owner, context!())?;
    let names: Vec<&str> = claimed.iter().map(|(name, _)| name.as_str()).collect();
    let sentence = if names.is_empty() {
        "nothing was written before signing in".to_owned()
    } else {
        format!("took over {}: {}; `sync` pushes what is new", count(names.len() as u64, "dataset"), names.join(", "))
    };
    output.answer(&sentence, &json!({"claimed": names}))?;
    Ok(Exit::Success)
}

pub(super) fn check(device: &mut Device, output: &Output) -> Result<Exit, CliError> {
    device.db.check()?;
    output.answer("the file is sound", &json!({"sound": true}))?;
    Ok(Exit::Success)
}

fn to_json(value: &impl serde::Serialize) -> Result<Json, CliError> {
    serde_json::to_value(value).map_err(|error| CliError::Failed(format!("it has no JSON form: {error}")))
}

#[cfg(test)]
mod tests {
    use sync_core::model::Value;

    use super::*;

    #[test]
    fn an_answer_is_a_word_or_json() {
        assert_eq!(parse_answer("local").unwrap(), Resolution::KeepLocal);
        assert_eq!(parse_answer("remote").unwrap(), Resolution::KeepRemote);
        assert_eq!(parse_answer("remove").unwrap(), Resolution::Value(None));
        let text = Resolution::Value(Some(Value::Text("local".into())));
        assert_eq!(parse_answer(r#""local""#).unwrap(), text);
        assert!(parse_answer("both").is_err());
    }
}
