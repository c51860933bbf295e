//! What this program needs to know before it can do anything: where etcd is, which cluster, which credentials.
//!
//! The same file serves the agent and this program, and many files serve only this one, so just the keys that matter
//! here are handed to the reader of the agent's configuration; what is wrong elsewhere in the file is the agent's
//! business. [`read_inputs`] touches the disk, [`read_settings`] is pure.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pgha_dcs::etcd::EtcdConfig;
use pgha_wire::config::{BasicAuth, Etcd, Finding, Severity, Source, load};
use pgha_wire::yaml::emit::{KeyOrder, to_yaml};
use pgha_wire::yaml::{Kind, Node, Value, parse};

use crate::error::CtlError;
use crate::limits::{MAX_FILE_BYTES, MAX_FILES};

/// What the commands work with.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Cluster when none is named.
    pub scope: Option<String>,
    /// Path below which clusters lie.
    pub namespace: String,
    /// How to reach etcd.
    pub etcd: EtcdConfig,
    /// What members ask for.
    pub auth: Option<BasicAuth>,
}

/// Everything that settings are made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inputs {
    /// Name and text of files, later ones over earlier ones.
    pub files: Vec<(String, String)>,
    /// Environment variables; only `PATRONI_*` and `PGHA_*` are looked at.
    pub env: BTreeMap<String, String>,
    /// `--dcs-url`.
    pub dcs_url: Option<String>,
}

/// Variable that names the file, in the words of `patronictl`.
const FILE_VARIABLE: &str = "PATRONICTL_CONFIG_FILE";
/// Variable that holds a whole configuration.
const WHOLE_VARIABLE: &str = "PATRONI_CONFIGURATION";
/// Stands for a scope that nobody gave: the reader insists on one.
const NO_SCOPE: &str = "no scope was given";
/// What the reader insists on and this program does not use.
const BASE: &str = "scope: no scope was given\nname: pgha-ctl\nrestapi: {listen: '127.0.0.1:8008'}\n\
                    postgresql: {listen: '127.0.0.1:5432', data_dir: /nowhere, authentication: {replication: {username: nobody}}}\n";
/// Top-level keys that matter here. Other stores are among them: it must not go unnoticed that they are not etcd.
const KEYS: [&str; 10] = [
    "scope",
    "namespace",
    "ctl",
    "etcd",
    "etcd3",
    "consul",
    "exhibitor",
    "kubernetes",
    "raft",
    "zookeeper",
];
/// The same for variables, without `PATRONI_` or `PGHA_`.
const VARIABLES: [&str; 7] = [
    "SCOPE",
    "NAMESPACE",
    "CTL_",
    "ETCD_",
    "ETCD3_",
    "RESTAPI_USERNAME",
    "RESTAPI_PASSWORD",
];
const STORES: [&str; 7] = [
    "etcd",
    "etcd3",
    "consul",
    "exhibitor",
    "kubernetes",
    "raft",
    "zookeeper",
];

/// Collects the files and the environment.
///
/// # Errors
/// [`CtlError::Config`] when a file that was asked for cannot be read.
pub fn read_inputs(
    file: Option<PathBuf>,
    dcs_url: Option<String>,
    env: BTreeMap<String, String>,
) -> Result<Inputs, CtlError> {
    let asked_for = file.or_else(|| env.get(FILE_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from));
    let files = match (&asked_for, env.get(WHOLE_VARIABLE)) {
        (Some(path), _) => read_path(path).map_err(|reason| {
            let path = path.display();
            CtlError::Config(format!(
                "Provided config file {path} not existing or no read rights. Check the -c/--config-file parameter ({reason})"
            ))
        })?,
        (None, Some(text)) => vec![(format!("environment variable {WHOLE_VARIABLE}"), text.clone())],
        (None, None) => match default_files(&env).into_iter().find(|path| path.exists()) {
            Some(path) => read_path(&path).map_err(|e| CtlError::Config(format!("{}: {e}", path.display())))?,
            None => Vec::new(),
        },
    };
    Ok(Inputs { files, env, dcs_url })
}

/// The files that are taken when none is named: the first that exists.
fn default_files(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let folder = match (env.get("XDG_CONFIG_HOME").filter(|v| !v.is_empty()), env.get("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => Path::new(home).join(".config"),
        (None, None) => return Vec::new(),
    };
    vec![
        folder.join("pgha/pgha-ctl.yaml"),
        folder.join("patroni/patronictl.yaml"),
    ]
}

fn read_path(path: &Path) -> std::io::Result<Vec<(String, String)>> {
    if !path.is_dir() {
        return Ok(vec![read_file(path)?]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() || paths.len() > MAX_FILES {
        let text = format!("{} *.yml files are in it, 1 to {MAX_FILES} are allowed", paths.len());
        return Err(std::io::Error::other(text));
    }
    paths.iter().map(|path| read_file(path)).collect()
}

fn read_file(path: &Path) -> std::io::Result<(String, String)> {
    let mut text = String::new();
    // One byte more than is allowed, so that the YAML reader sees that it is too long.
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    Ok((path.display().to_string(), text))
}

/// Makes settings of them.
///
/// # Errors
/// [`CtlError::Config`] with everything that is wrong.
pub fn read_settings(inputs: &Inputs) -> Result<Settings, CtlError> {
    let url = inputs
        .dcs_url
        .as_deref()
        .map(parse_dcs_url)
        .transpose()
        .map_err(CtlError::Config)?;
    let mut texts = vec![("pgha-ctl".to_owned(), BASE.to_owned())];
    for (i, (name, text)) in inputs.files.iter().enumerate() {
        texts.push((name.clone(), relevant_part(name, text, i, url.is_some())?));
    }
    if let Some(url) = &url {
        texts.push(("--dcs-url".to_owned(), url.as_yaml()));
    }
    let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let env = relevant_variables(&inputs.env, url.is_some());
    let config = match load(&sources, &env) {
        Ok(loaded) => loaded.config,
        Err(findings) => return Err(CtlError::Config(explain(&findings, inputs))),
    };
    Ok(Settings {
        scope: Some(config.scope).filter(|scope| scope != NO_SCOPE),
        namespace: config.namespace,
        etcd: etcd_config(&config.etcd)?,
        auth: config.ctl.authentication.or(config.restapi.authentication),
    })
}

fn explain(findings: &[Finding], inputs: &Inputs) -> String {
    let errors = findings.iter().filter(|f| f.severity == Severity::Error);
    let mut text = errors.map(Finding::to_string).collect::<Vec<String>>().join("\n");
    if inputs.files.is_empty() && inputs.dcs_url.is_none() {
        text.push_str("\nno configuration file was found; name one with -c FILE, or etcd with -d HOST:PORT");
    }
    text
}

fn relevant_variables(env: &BTreeMap<String, String>, other_store: bool) -> BTreeMap<String, String> {
    let is_relevant = |name: &str| {
        let Some(rest) = name.strip_prefix("PATRONI_").or_else(|| name.strip_prefix("PGHA_")) else {
            return false;
        };
        let is_store = rest.starts_with("ETCD_") || rest.starts_with("ETCD3_");
        VARIABLES.iter().any(|v| rest.starts_with(v)) && !(other_store && is_store)
    };
    env.iter()
        .filter(|(name, _)| is_relevant(name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// The text of a file with only the keys that matter, each in its line of old, so that errors name that line.
fn relevant_part(name: &str, text: &str, source: usize, other_store: bool) -> Result<String, CtlError> {
    let root = match parse(text, source) {
        Ok(parsed) => parsed.root,
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(|e| format!("{name}: {e}")).collect();
            return Err(CtlError::Config(lines.join("\n")));
        }
    };
    let Some(root) = root else {
        return Err(CtlError::Config(format!(
            "{name}: the file is empty; write at least `etcd3` with `hosts`"
        )));
    };
    let Some(entries) = root.entries() else {
        return Err(CtlError::Config(format!(
            "{name}: the file holds no mapping; write at least `etcd3` with `hosts`"
        )));
    };
    let mut out = String::new();
    let mut line = 1;
    let mut keep = |at: usize, text: String| {
        let blank = at.saturating_sub(line).max(usize::from(!out.is_empty()));
        out.push_str(&"\n".repeat(blank));
        line += blank;
        out.push_str(&text);
    };
    for entry in entries.iter().filter(|e| e.key.kind == Kind::Str) {
        let key = entry.key.text.as_str();
        if key == "restapi" {
            if let Some(auth) = entry.value.get("authentication") {
                keep(entry.at.line, format!("restapi: {{authentication: {}}}", flow(auth)));
            }
        } else if KEYS.contains(&key) && !(other_store && STORES.contains(&key)) {
            keep(entry.at.line, format!("{key}: {}", flow(&entry.value)));
        }
    }
    // An empty text is an error to the reader; a file without any of the keys is none.
    Ok(if out.is_empty() { "{}\n".to_owned() } else { out + "\n" })
}

/// A node as flow YAML that reads back with the same texts and types: `0644` may be a password.
fn flow(node: &Node) -> String {
    let quoted = |text: &str| {
        to_yaml(&serde_json::Value::from(text), KeyOrder::AsGiven)
            .trim_end()
            .to_owned()
    };
    match &node.value {
        Value::Scalar(scalar) => match scalar.kind {
            Kind::Str => quoted(&scalar.text),
            Kind::Null => "null".to_owned(),
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Date | Kind::DateTime => scalar.text.clone(),
        },
        Value::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<String>>().join(", ")),
        Value::Map(entries) => {
            let part = |e: &pgha_wire::yaml::Entry| format!("{}: {}", quoted(&e.key.text), flow(&e.value));
            format!("{{{}}}", entries.iter().map(part).collect::<Vec<String>>().join(", "))
        }
    }
}

/// `--dcs-url`, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
struct DcsUrl {
    address: String,
    namespace: Option<String>,
}

impl DcsUrl {
    fn as_yaml(&self) -> String {
        let text = |text: &str| to_yaml(&serde_json::Value::from(text), KeyOrder::AsGiven);
        let namespace = self
            .namespace
            .as_deref()
            .map(|n| format!("namespace: {}", text(n)))
            .unwrap_or_default();
        format!("etcd3: {{host: {}}}\n{namespace}", text(&self.address).trim_end())
    }
}

/// Reads `[SCHEME://]HOST[:PORT][/NAMESPACE]`. Without a scheme it is etcd, since pgha speaks nothing else.
fn parse_dcs_url(url: &str) -> Result<DcsUrl, String> {
    let rest = match url.split_once("://") {
        None | Some(("etcd" | "etcd3", _)) => url.split_once("://").map_or(url, |(_, rest)| rest),
        Some((other @ ("zookeeper" | "exhibitor" | "consul"), _)) => {
            return Err(format!(
                "--dcs-url: {other} is not supported yet; use etcd3://HOST:PORT"
            ));
        }
        Some((other, _)) => return Err(format!("Unknown dcs scheme: {other}; use etcd3://HOST:PORT")),
    };
    let (address, namespace) = rest
        .split_once('/')
        .map_or((rest, ""), |(address, path)| (address, path));
    let address = match address {
        "" => "localhost:2379".to_owned(),
        port if port.starts_with(':') => format!("localhost{port}"),
        _ => address.to_owned(),
    };
    let namespace = Some(namespace.trim_matches('/'))
        .filter(|n| !n.is_empty())
        .map(|n| format!("/{n}"));
    Ok(DcsUrl { address, namespace })
}

fn etcd_config(etcd: &Etcd) -> Result<EtcdConfig, CtlError> {
    EtcdConfig::from_section(etcd).map_err(|e| CtlError::Config(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, env: &[(&str, &str)], url: Option<&str>) -> Result<Settings, String> {
        read_settings(&Inputs {
            files: vec![("ctl.yml".to_owned(), text.to_owned())],
            env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            dcs_url: url.map(str::to_owned),
        })
        .map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_for_this_program_alone_needs_only_etcd() {
        let found = settings("etcd3: {hosts: 'a:2379,b:2379'}\n", &[], None).expect("valid");
        assert_eq!(found.etcd.endpoints, ["a:2379", "b:2379"]);
        assert_eq!(
            (found.scope, found.namespace.as_str(), found.auth),
            (None, "/service", None)
        );
    }

    #[test]
    fn what_is_wrong_for_the_agent_only_does_not_matter_here() {
        let text = "scope: batman\nnamespace: /x/\nloop_wait: [broken]\npostgresql: 5\nrestapi:\n  listen: 7\n  authentication:\n    username: u\n    password: '0644'\netcd:\n  host: a\n";
        let found = settings(text, &[], None).expect("valid");
        assert_eq!(found.scope.as_deref(), Some("batman"));
        assert_eq!(found.namespace, "/x");
        assert_eq!(
            found.auth.as_ref().map(|a| (a.username.as_str(), a.password.expose())),
            Some(("u", "0644"))
        );
    }

    #[test]
    fn credentials_of_ctl_win() {
        let text = "etcd3: {host: a}\nrestapi: {authentication: {username: u, password: p}}\nctl: {authentication: {username: c, password: d}}\n";
        assert_eq!(
            settings(text, &[], None).expect("valid").auth.map(|a| a.username),
            Some("c".to_owned())
        );
    }

    #[test]
    fn variables_win_over_the_file_and_the_url_over_both() {
        let env = [
            ("PATRONI_ETCD3_HOSTS", "'b:1'"),
            ("PATRONI_SCOPE", "robin"),
            ("PATRONI_LOG_LEVEL", "nonsense"),
        ];
        let found = settings("scope: batman\netcd3: {host: a}\n", &env, None).expect("valid");
        assert_eq!(
            (found.scope.as_deref(), found.etcd.endpoints),
            (Some("robin"), vec!["b:1".to_owned()])
        );
        let found = settings("etcd3: {host: a}\nconsul: {host: x}\n", &env, Some("etcd3://c:2/ns")).expect("valid");
        assert_eq!(
            (found.namespace.as_str(), found.etcd.endpoints),
            ("/ns", vec!["c:2".to_owned()])
        );
    }

    #[test]
    fn errors_name_file_and_line_and_remedy() {
        let error = |text: &str| settings(text, &[], None).expect_err("broken");
        assert!(
            error("scope: x\n\netcd3:\n  hosts: {a: b}\n").starts_with("ctl.yml:3: etcd3.hosts"),
            "{}",
            error("scope: x\n\netcd3:\n  hosts: {a: b}\n")
        );
        assert!(error("a: [\n").starts_with("ctl.yml: line "), "{}", error("a: [\n"));
        assert!(error("").contains("empty"));
        assert!(error("- a\n").contains("mapping"));
        assert!(error("consul: {host: a}\n").contains("Consul is not supported"));
        assert!(error("scope: x\n").contains("etcd3"));
    }

    #[test]
    fn the_url_has_defaults_and_refuses_other_stores() {
        for (url, address, namespace) in [
            ("etcd3://h:1/ns/", "h:1", Some("/ns")),
            ("h", "h", None),
            ("etcd://", "localhost:2379", None),
            (":2380", "localhost:2380", None),
        ] {
            let expected = DcsUrl {
                address: address.to_owned(),
                namespace: namespace.map(str::to_owned),
            };
            assert_eq!(parse_dcs_url(url), Ok(expected), "{url}");
        }
        assert!(parse_dcs_url("bogus://x").is_err_and(|e| e.contains("Unknown dcs scheme: bogus")));
        assert!(parse_dcs_url("consul://x").is_err());
    }
}
