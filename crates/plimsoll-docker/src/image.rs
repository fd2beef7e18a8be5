//! Images: had by the engine under the very digest that is released, pulled when they are not.

use crate::{EngineError, engine::Engine};
use bollard::{auth::DockerCredentials, query_parameters::CreateImageOptionsBuilder};
use futures_util::StreamExt as _;
use plimsoll_core::ImageRef;
use plimsoll_local::supervisor::Login;
use std::time::Duration;
use tokio::time::timeout;

/// How long a pull may take: a gigabyte over ten megabits a second.
const PULL: Duration = Duration::from_mins(15);

/// The user of containers whose image names none, or root: no name of a person, no right to anything.
const NONROOT: &str = "65532:65532";

/// An image as the engine has it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// What the engine calls it; containers name the same.
    pub(crate) id: String,
    /// The user it is to run as.
    pub(crate) user: String,
}

/// The image, when the engine has it.
pub(crate) async fn look(engine: &Engine, image: &ImageRef) -> Result<Option<Image>, EngineError> {
    let name = image.to_string();
    let looked = engine.api.inspect_image(&name).await;
    let Some(seen) = engine.found(&format!("look at the image {name}"), looked)? else { return Ok(None) };
    let id = seen.id.ok_or_else(|| EngineError::Lacks { what: format!("id of {name}") })?;
    let user = seen.config.and_then(|c| c.user).unwrap_or_default();
    Ok(Some(Image { id, user: user_of(&user) }))
}

/// The image, pulled from its registry when the engine lacks it. What is there needs no registry: a release is put back also
/// when that is down.
pub(crate) async fn ensure(engine: &Engine, image: &ImageRef, login: Option<&Login>) -> Result<Image, EngineError> {
    if let Some(here) = look(engine, image).await? {
        return Ok(here);
    }
    let what = format!("pull {image}");
    let options = CreateImageOptionsBuilder::new().from_image(&image.to_string()).build();
    let mut progress = std::pin::pin!(engine.api.create_image(Some(options), None, login.map(credentials)));
    let pulled = async {
        // Ends with the stream, within the time below.
        while let Some(line) = progress.next().await {
            line.map_err(|e| engine.failed(&what, e))?;
        }
        Ok(())
    };
    timeout(PULL, pulled).await.map_err(|_| EngineError::Late { what: what.clone(), seconds: PULL.as_secs() })??;
    look(engine, image).await?.ok_or(EngineError::Lacks { what: format!("image {image} after it was pulled") })
}

fn credentials(login: &Login) -> DockerCredentials {
    let (username, password) = (Some(login.username.clone()), Some(login.password.clone()));
    DockerCredentials { username, password, ..DockerCredentials::default() }
}

/// Who the processes of an image run as: whom it names, but never root.
fn user_of(named: &str) -> String {
    match named.split(':').next().unwrap_or_default() {
        "" | "0" | "root" => NONROOT.to_owned(),
        _ => named.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_runs_as_root_and_another_user_of_the_image_is_kept() {
        for (named, user) in
            [("", NONROOT), ("root", NONROOT), ("0:1000", NONROOT), ("1000:0", "1000:0"), ("app", "app")]
        {
            assert_eq!(user_of(named), user);
        }
    }
}
