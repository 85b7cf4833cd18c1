//! Programs run in a container, and what a container writes as it writes it.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::{CALL, DockerEngine};
use crate::EngineError;
use crate::engine::Ran;

/// The longest line that is taken from a program's output at once.
const LINE: usize = 1024;

impl DockerEngine {
    /// Runs a program to its end, at most for `timeout`. The engine has no way to end one that is late: it goes on in its container.
    pub(super) async fn exec_in(&self, name: &str, command: &[String], timeout: Duration, most: usize) -> Result<Ran, EngineError> {
        let what = format!("run `{}` in container `{name}`", command.first().map_or("", String::as_str));
        let options =
            CreateExecOptions { attach_stdout: Some(true), attach_stderr: Some(true), cmd: Some(command.to_vec()), ..Default::default() };
        let created = match self.call(&what, CALL.min(timeout), self.docker()?.create_exec(name, options)).await {
            Err(EngineError::Refused { status: 404, .. }) => return Err(EngineError::NoContainer { name: name.into() }),
            other => other?,
        };
        let start = StartExecOptions { detach: false, tty: false, output_capacity: Some(LINE) };
        let docker = self.docker()?;
        let run = async {
            let mut kept = Vec::new();
            if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&created.id, Some(start)).await? {
                while let Some(piece) = output.next().await {
                    // What is too much is read and dropped, so that the program does not wait for us.
                    let piece = piece?.into_bytes();
                    kept.extend_from_slice(&piece[..piece.len().min(most.saturating_sub(kept.len()))]);
                }
            }
            Ok(kept)
        };
        let output = self.call(&what, timeout, run).await?;
        let found = self.call(&what, CALL, self.docker()?.inspect_exec(&created.id)).await?;
        // No code: it could not be run at all.
        Ok(Ran { code: found.exit_code.unwrap_or(-1), output })
    }

    /// What a container writes from now on.
    pub(super) fn follow_logs(&self, name: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send + use<> {
        let options = LogsOptions { stdout: true, stderr: true, follow: true, tail: "0".into(), ..Default::default() };
        let engine = self.clone();
        let docker = match self.docker() {
            Ok(docker) => docker,
            Err(error) => return stream::iter([Err(error)]).left_stream(),
        };
        let pieces = docker.logs(name, Some(options));
        let pieces = pieces
            .map(move |piece| piece.map(bollard::container::LogOutput::into_bytes).map_err(|error| engine.error("follow its logs", error)));
        pieces.right_stream()
    }
}
