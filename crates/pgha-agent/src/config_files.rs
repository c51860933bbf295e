//! Finds and reads the configuration: a file, a directory of files, `PATRONI_CONFIGURATION`, or variables alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgha_wire::config::{Loaded, Source, load};

/// Variable that holds a whole configuration.
const WHOLE: [&str; 2] = ["PGHA_CONFIGURATION", "PATRONI_CONFIGURATION"];

/// Reads the configuration. The error is a list of complete lines for a person.
///
/// # Errors
/// A file cannot be read, or its content cannot be used.
pub fn read(path: Option<&Path>) -> Result<Loaded, Vec<String>> {
    let mut env: BTreeMap<String, String> = std::env::vars().collect();
    let files = match path {
        Some(path) => read_path(path)?,
        None => match WHOLE.iter().find_map(|name| Some((*name, env.remove(*name)?))) {
            Some((name, text)) => {
                // As Patroni has it: a whole configuration in a variable leaves no room for further ones.
                env.clear();
                vec![(name.to_owned(), text)]
            }
            None => Vec::new(),
        },
    };
    let sources: Vec<Source<'_>> = files.iter().map(|(name, text)| Source { name, text }).collect();
    load(&sources, &env).map_err(|findings| findings.iter().map(ToString::to_string).collect())
}

fn read_path(path: &Path) -> Result<Vec<(String, String)>, Vec<String>> {
    let trouble = |path: &Path, e: std::io::Error| vec![format!("cannot read {}: {e}", path.display())];
    let mut paths: Vec<PathBuf> = if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| trouble(path, e))?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|p| is_yaml(p))
            .collect()
    } else {
        vec![path.to_path_buf()]
    };
    paths.sort();
    if paths.is_empty() {
        return Err(vec![format!(
            "{}: the directory holds no *.yml or *.yaml file",
            path.display()
        )]);
    }
    let read = |p: PathBuf| match std::fs::read_to_string(&p) {
        Ok(text) => Ok((p.display().to_string(), text)),
        Err(e) => Err(trouble(&p, e)),
    };
    paths.into_iter().map(read).collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yml" || e == "yaml")
}
