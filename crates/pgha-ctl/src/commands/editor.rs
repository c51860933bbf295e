//! The user's editor on a temporary file.

use std::io::Write;
use std::process::Command;

use serde_json::{Map, Value};

use crate::config_change::parse_mapping;
use crate::error::CtlError;

/// Editors that are tried when `EDITOR` is not set.
const USUAL_EDITORS: [&str; 2] = ["editor", "vi"];
/// Runs the editor as a shell would, since `EDITOR` may hold options; the file's name is never parsed by it.
const SCRIPT: &str = "exec $PGHA_CTL_EDITOR \"$1\"";

/// Lets the user edit the text and reads it as a YAML mapping. A text with a mistake is kept, and the error says where.
pub(super) fn edit(scope: &str, text: &str, editor: Option<&str>) -> Result<Map<String, Value>, CtlError> {
    let failed = |e: std::io::Error| CtlError::refused(format!("the temporary file for the editor failed: {e}"));
    let mut file = tempfile::Builder::new()
        .prefix(&format!("{scope}-config-"))
        .suffix(".yaml")
        .tempfile()
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.flush())
        .map_err(failed)?;

    let editor = match editor.filter(|e| !e.trim().is_empty()) {
        Some(editor) => editor.to_owned(),
        None => usual_editor()?,
    };
    let status = Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .arg(file.path())
        .env("PGHA_CTL_EDITOR", &editor)
        .status()
        .map_err(|e| CtlError::refused(format!("the editor {editor} cannot be started: {e}")))?;
    if !status.success() {
        let code = status
            .code()
            .map_or_else(|| status.to_string(), |code| code.to_string());
        return Err(CtlError::refused(format!("Editor exited with return code {code}")));
    }
    // Many editors write a new file in place of the old one, so it is opened again by its name.
    let edited = std::fs::read_to_string(file.path()).map_err(failed)?;
    parse_mapping(&edited, "the edited text").map_err(|mistake| match file.keep() {
        Ok((_, path)) => CtlError::refused(format!(
            "{mistake}; nothing is changed, your text is in {}",
            path.display()
        )),
        Err(_) => mistake,
    })
}

fn usual_editor() -> Result<String, CtlError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let exists = |name: &&&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    USUAL_EDITORS
        .iter()
        .find(exists)
        .map(|name| (*name).to_owned())
        .ok_or_else(|| CtlError::refused("EDITOR environment variable is not set. editor or vi are not available"))
}
