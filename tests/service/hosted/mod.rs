//! What is hosted here, from outside: pushed, pulled, listed and deleted, by every client and in spite of every one.
//!
//! Tests with a number hold one sentence of the OCI distribution specification (1.1, and what its development adds
//! since); `D` marks the latter. A sentence that binds clients alone has no test.
//!
//! | section of the specification | sentence | test |
//! |---|---|---|
//! | Pulling manifests | GET of an existing manifest MUST be 200 with that manifest | `pull_01`, `pull_04` |
//! | | the answer MUST have its digest (D) | `pull_02` |
//! | | `Content-Type` SHOULD NOT have parameters, and SHOULD be what it was pushed with | `pull_03` |
//! | | a manifest that is not found MUST be 404 | `pull_05` |
//! | | `<name>` MUST match its grammar | `pull_13`, `pull_14` |
//! | | a tag MUST have at most 128 characters and match its grammar, and nothing else is a reference | `pull_15` |
//! | Pulling blobs | GET of an existing blob MUST be 200 with that blob | `pull_06`, `pull_17` |
//! | | the digest MUST be there (D) and match the body | `pull_07` |
//! | | a blob that is not found MUST be 404 | `pull_08` |
//! | | `Range` SHOULD be supported | `pull_09` |
//! | Checking if content exists | HEAD MUST be 200, with digest (D) and length | `pull_10` |
//! | | HEAD of what is not found MUST be 404 | `pull_11` |
//! | Determining support | GET of `/v2/` is 200 | `pull_16` |
//! | Push | a manifest whose subject is not there MUST be accepted | `subject_02`, `sequence_07` |
//! | | a manifest refused for content that is missing MUST be `MANIFEST_BLOB_UNKNOWN` | `manifest_09` |
//! | Pushing blobs | an invalid digest or unsupported algorithm SHOULD be 400 | `blob_05`, `blob_06`, `blob_08` |
//! | POST then PUT | POST MUST be 202 with `Location` | `blob_01` |
//! | | the location MUST contain a unique identity | `blob_02`, `blob_11` |
//! | | the location MAY have parameters, which clients keep | `blob_10` |
//! | | PUT MUST be 201 with a `Location` where the blob can be pulled | `blob_03`, `blob_09` |
//! | Single POST | MUST be 201 with such a `Location`, or SHOULD be 202 | `blob_04` |
//! | Pushing a blob in chunks | other algorithms SHOULD be announced (D) | `blob_07`, `blob_08` |
//! | | a smallest size of chunks SHOULD be said | `chunk_03` |
//! | | a chunk MUST be 202 with `Location` and `Range` | `chunk_01`, `chunk_08`, `chunk_09`, `chunk_15` |
//! | | the range MUST match its grammar | `chunk_13`, `chunk_14` |
//! | | a chunk out of order MUST be 416 | `chunk_04`, `chunk_05` |
//! | | the session MUST be closed with a PUT | `chunk_01` |
//! | | the final chunk MAY come with the PUT, which MUST be 201 with `Location` | `chunk_02`, `chunk_09` |
//! | | a final chunk out of order MUST be 416 | `chunk_06` |
//! | | GET of a session MUST be 204 with `Location` and `Range` | `chunk_07`, `chunk_10`, `chunk_11` |
//! | Cancel a blob upload | DELETE SHOULD be 204 (D) | `chunk_12` |
//! | | unfinished uploads SHOULD end by themselves | `uploads_that_nobody_goes_on_with_…` |
//! | Mounting a blob | a mount MUST be 201 with `Location` | `mount_01`, `mount_04` |
//! | | what cannot be mounted SHOULD be 202 | `mount_02`, `mount_05` |
//! | | `from` MAY be optional | `mount_03` |
//! | Pushing manifests | parameters of `Content-Type` SHOULD be ignored | `manifest_01` |
//! | | the list of blobs MAY be empty | `manifest_02`, `sequence_02` |
//! | | the bytes MUST be kept exactly | `manifest_03` |
//! | | the answer MUST be 201 with a `Location` where it can be pulled | `manifest_04` |
//! | | the digest MUST be the client's | `manifest_05`, `manifest_12` |
//! | | ten tags SHOULD be taken with a push by digest, and MUST be answered in `OCI-Tag` (D) | `manifest_06`, `manifest_07` |
//! | | a pull from a repository that does not exist MUST be 404 | `pull_12` |
//! | | the size SHOULD be limited, with 413 | `manifest_08` |
//! | | 4 megabytes SHOULD be taken | `manifest_08`, `sequence_03` |
//! | Pushing manifests with subject | `OCI-Subject` MUST be answered | `subject_01` |
//! | Listing tags | the list MUST be 200 in its form, in order | `tags_01`, `tags_02`, `tags_07` |
//! | | `n` MUST be kept to, or a `Link` says that there is more, with `rel="next"` | `tags_03` |
//! | | `n=0` MUST be an empty list without `Link` (D) | `tags_04` |
//! | | the list goes on after `last`, which MUST be a tag | `tags_05`, `tags_06` |
//! | Listing referrers | MUST be 200, never 404 | `referrers_01`, `referrers_02` |
//! | | an invalid digest MUST be 400 | `referrers_03` |
//! | | the type MUST be that of an index | all of `referrers_` |
//! | | `artifactType` MUST be that of the manifest, or the configuration's type, or left out for an index | `referrers_04` |
//! | | annotations MUST be there | `referrers_04` |
//! | | a list that is too long MUST have a `Link` | `referrers_06` |
//! | | a filter SHOULD be supported, and MUST be said when it is applied | `referrers_05` |
//! | | every manifest with a subject MUST be listed | `referrers_07`, `referrers_08`, `subject_02` |
//! | Deleting tags | MUST be 202, and then 404 | `delete_01` |
//! | Deleting manifests | MUST be 202, and then 404 by every tag | `delete_02`, `delete_06`, `delete_08` |
//! | | in a repository that does not exist, MUST be 404 | `delete_04` |
//! | | a deleted referrer is no longer listed | `delete_07` |
//! | Deleting blobs | MUST be 202; not found MUST be 404 | `delete_05` |
//! | Error codes | JSON errors MUST have their form and codes | `error_01` to `error_06` |

mod actor;
mod backends;
mod load;
mod registry;
mod wire;

mod conformance_blobs;
mod conformance_chunks;
mod conformance_discovery;
mod conformance_errors;
mod conformance_management;
mod conformance_manifests;
mod conformance_pull;
mod conformance_sequences;
mod dialects;
mod durability;
mod hostile_content;
mod hostile_uploads;
mod rights;

pub(crate) use durability::{needed_by, tell, verify_all, verify_files};
pub(crate) use load::{Writer, spawn_load};
pub(crate) use registry::Hosted;
