//! The address of a table.

use std::str::FromStr;

/// Which table, and where: `dynamodb://TABLE?region=REGION&endpoint=URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamoDbSettings {
    /// The name of the table.
    pub table: String,
    /// The region; nothing: the one that the environment says.
    pub region: Option<String>,
    /// Where the service is, if it is not where the region says.
    pub endpoint: Option<String>,
}

/// A text is not the address of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// It has another form.
    #[error("the address of the table is not written dynamodb://TABLE?region=REGION")]
    Form,
    /// DynamoDB has no tables of that name.
    #[error("`{0}` is not the name of a table: it has 3 to 255 letters, digits, `_`, `-` or `.`")]
    Table(String),
    /// A parameter is not known, or has no value.
    #[error("the address of a table has no parameter `{0}`; there are region=REGION and endpoint=URL")]
    Parameter(String),
    /// The endpoint is not a URL.
    #[error("`{0}` is not the URL of an endpoint; write https://HOST or http://HOST:PORT")]
    Endpoint(String),
}

impl FromStr for DynamoDbSettings {
    type Err = InvalidSettings;

    fn from_str(text: &str) -> Result<Self, InvalidSettings> {
        let rest = text.strip_prefix("dynamodb://").ok_or(InvalidSettings::Form)?;
        let (table, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(3..=255).contains(&table.len()) || !table.bytes().all(is_name) {
            return Err(InvalidSettings::Table(table.to_owned()));
        }
        let mut settings = Self { table: table.to_owned(), region: None, endpoint: None };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("region", region)) if !region.is_empty() => settings.region = Some(region.to_owned()),
                Some(("endpoint", endpoint)) => {
                    let host = ["http://", "https://"].into_iter().find_map(|scheme| endpoint.strip_prefix(scheme));
                    if host.is_none_or(str::is_empty) {
                        return Err(InvalidSettings::Endpoint(endpoint.to_owned()));
                    }
                    settings.endpoint = Some(endpoint.to_owned());
                }
                Some((name, _)) => return Err(InvalidSettings::Parameter(name.to_owned())),
                None => return Err(InvalidSettings::Parameter(parameter.to_owned())),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_table_and_nothing_that_is_not_known() {
        let settings = |region: Option<&str>, endpoint: Option<&str>| DynamoDbSettings {
            table: "sync.line-1".to_owned(),
            region: region.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
        };
        for (text, expected) in [
            ("dynamodb://sync.line-1", Ok(settings(None, None))),
            ("dynamodb://sync.line-1?region=eu-central-1", Ok(settings(Some("eu-central-1"), None))),
            (
                "dynamodb://sync.line-1?endpoint=http://127.0.0.1:8000&region=x",
                Ok(settings(Some("x"), Some("http://127.0.0.1:8000"))),
            ),
            ("mysql://sync.line-1", Err(InvalidSettings::Form)),
            ("dynamodb://ab", Err(InvalidSettings::Table("ab".to_owned()))),
            ("dynamodb://a/b", Err(InvalidSettings::Table("a/b".to_owned()))),
            ("dynamodb://sync.line-1?regoin=x", Err(InvalidSettings::Parameter("regoin".to_owned()))),
            ("dynamodb://sync.line-1?region=", Err(InvalidSettings::Parameter("region".to_owned()))),
            ("dynamodb://sync.line-1?region", Err(InvalidSettings::Parameter("region".to_owned()))),
            ("dynamodb://sync.line-1?endpoint=host", Err(InvalidSettings::Endpoint("host".to_owned()))),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }
}
