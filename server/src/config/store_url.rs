//! Where data are kept.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a store. It may have a password in it, and shows none.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite:FOLDER`: the database in a data folder.
    Sqlite(PathBuf),
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE`: MySQL or MariaDB.
    Mysql(String),
    /// `dynamodb://TABLE?region=REGION`: a table of DynamoDB.
    DynamoDb(String),
}

/// A text is not such an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not the address of a store: sqlite:FOLDER, mysql://USER:PASSWORD@HOST:PORT/DATABASE, or \
     dynamodb://TABLE?region=REGION"
)]
pub struct InvalidStoreUrl;

const SQLITE: &str = "sqlite:";
const MYSQL: [&str; 2] = ["mysql://", "mariadb://"];
const DYNAMODB: &str = "dynamodb://";

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        let (scheme, _) = text.split_once(':').ok_or(InvalidStoreUrl)?;
        let behind = |start: &str| text.strip_prefix(start).filter(|rest| !rest.is_empty());
        match scheme {
            "sqlite" => behind(SQLITE).map(|folder| Self::Sqlite(PathBuf::from(folder))),
            "mysql" | "mariadb" => MYSQL.into_iter().find_map(behind).map(|_| Self::Mysql(text.to_owned())),
            "dynamodb" => behind(DYNAMODB).map(|_| Self::DynamoDb(text.to_owned())),
            _ => None,
        }
        .ok_or(InvalidStoreUrl)
    }
}

impl fmt::Display for StoreUrl {
    /// Without user, password and options.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, start) = match self {
            Self::Sqlite(folder) => return write!(formatter, "{SQLITE}{}", folder.display()),
            Self::Mysql(text) | Self::DynamoDb(text) => (text, text.find("://").map_or(0, |at| at + 3)),
        };
        let (scheme, rest) = text.split_at(start);
        let rest = rest.split('?').next().unwrap_or_default();
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        write!(formatter, "{scheme}{place}")
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_of_three_kinds_of_stores_and_shows_no_password() {
        for (text, shown) in [
            ("sqlite:syncline-data", "sqlite:syncline-data"),
            ("sqlite:/var/lib/syncline", "sqlite:/var/lib/syncline"),
            ("mysql://sync:p%40ss@db.example:3307/app?ssl-ca=/a", "mysql://db.example:3307/app"),
            ("mariadb://localhost/app", "mariadb://localhost/app"),
            ("mysql://sync:odd@pass@host/app", "mysql://host/app"),
            ("dynamodb://syncline?region=eu-central-1", "dynamodb://syncline"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for bad in
            ["", "mysql", "mysql:", "mysql://", "mysql:/host/app", "postgres://host/app", "sqlite:", "syncline-data"]
        {
            assert_eq!(bad.parse::<StoreUrl>(), Err(InvalidStoreUrl), "{bad}");
        }
    }
}
