//! A small job.

use skerry_client::{Client, ClientError};
use skerry_jobspec::{Variables, parse};
use skerry_trust::{SigningKey, envelope};
use skerry_wire::api::{SubmitReply, SubmitRequest, Submitter};
use skerry_wire::job::Job;
use skerry_wire::release::Specification;
use skerry_wire::{Blob, Timestamp};

/// A system job with one task.
pub fn job(id: &str, image: &str) -> Job {
    typed(id, image, "type = \"system\"")
}

/// A job of one task; `head` is put into the job block.
pub fn typed(id: &str, image: &str, head: &str) -> Job {
    let text = format!(
        "job \"{id}\" {{\n  {head}\n  group \"main\" {{\n    task \"app\" {{\n      driver = \"docker\"\n      config {{\n        image = \"{image}\"\n      }}\n    }}\n  }}\n}}\n"
    );
    let parsed = parse(&text, &Variables::default());
    parsed.job.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

/// Signs and submits a job whose images are resolved.
pub async fn submit(client: &Client, key: &SigningKey, job: Job) -> Result<SubmitReply, ClientError> {
    let specification = Blob(envelope::seal(key, Specification::PURPOSE, &Specification { job, signed_at: Timestamp(0) }));
    let submitter = Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
    client.submit_job(&SubmitRequest { specification, source: "the text".to_owned(), submitter, max_bytes: None, again: false }).await
}
