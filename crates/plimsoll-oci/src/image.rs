//! Images and indexes, written as canonical JSON: keys sorted, no spaces, nothing that depends on when or where.

use crate::layer::write_layer;
use crate::{
    BlobError, BlobStore, Compression, Contents, Descriptor, Entry, Layer, LayerError, MAX_MANIFEST, ManifestView,
    PlatformSpec, descriptor,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_spec::image as oci;
use plimsoll_core::{Classify, Digest, ErrorClass, Platform};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    panic::resume_unwind,
    path::Path,
};

/// What an image of one platform is made of.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// What it runs on.
    pub platform: Platform,
    /// The command that always runs.
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// The working directory; `/` if empty.
    pub working_dir: String,
    /// `uid:gid` or names out of `/etc/passwd`.
    pub user: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The time of creation, in seconds since 1970: the commit's, not now.
    pub epoch: u64,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

/// What an index lists.
#[derive(Debug, Clone)]
pub struct IndexSpec {
    /// One image per platform; order does not matter.
    pub images: Vec<(Platform, Descriptor)>,
    /// Remarks on the whole.
    pub annotations: BTreeMap<String, String>,
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A layer could not be built.
    #[error("cannot build a layer of the image")]
    Layer(#[from] LayerError),
    /// It could not be stored.
    #[error("cannot store the image")]
    Store(#[from] BlobError),
    /// A part does not fit the specification.
    #[error("the image's {part} does not fit the specification")]
    Spec {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something that cannot be.
    #[error("the image cannot be written: {reason}")]
    Invalid {
        /// Why.
        reason: &'static str,
    },
}

impl ImageError {
    fn spec<E: std::error::Error + Send + Sync + 'static>(part: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Spec { part, source: Box::new(source) }
    }
}

impl Classify for ImageError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Layer(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Spec { .. } | Self::Invalid { .. } => ErrorClass::User,
        }
    }
}

/// Writes configuration and manifest; gives the manifest's descriptor, with its platform.
pub fn write_image(store: &BlobStore, spec: &ImageSpec) -> Result<Descriptor, ImageError> {
    let config = canonical(&configuration(spec)?, "configuration")?;
    write_manifest(store, spec.platform, &config, &spec.layers)
}

/// Writes the manifest of an image with this configuration; gives its descriptor, with its platform.
pub(crate) fn write_manifest(
    store: &BlobStore,
    platform: Platform,
    config: &[u8],
    layers: &[Layer],
) -> Result<Descriptor, ImageError> {
    let config = Descriptor::new(descriptor::CONFIG, store.put(config)?, config.len() as u64);
    let manifest = oci::ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(oci::MediaType::ImageManifest)
        .config(pointer(&config)?)
        .layers(layers.iter().map(|l| pointer(&l.descriptor)).collect::<Result<Vec<_>, _>>()?)
        .build()
        .map_err(ImageError::spec("manifest"))?;
    let manifest = canonical(&manifest, "manifest")?;
    let mut written = Descriptor::new(descriptor::MANIFEST, store.put(&manifest)?, manifest.len() as u64);
    written.platform = Some(PlatformSpec { os: "linux".to_owned(), architecture: platform.architecture().to_owned() });
    Ok(written)
}

/// Writes an index; gives its descriptor.
pub fn write_index(store: &BlobStore, spec: &IndexSpec) -> Result<Descriptor, ImageError> {
    let images: BTreeMap<Platform, &Descriptor> = spec.images.iter().map(|(p, d)| (*p, d)).collect();
    if images.len() != spec.images.len() {
        return Err(ImageError::Invalid { reason: "one platform has two images" });
    }
    let manifests = images.into_iter().map(|(platform, image)| {
        let mut pointer = pointer(image)?;
        let platform = oci::PlatformBuilder::default()
            .os(oci::Os::Linux)
            .architecture(oci::Arch::from(platform.architecture()))
            .build()
            .map_err(ImageError::spec("platform"))?;
        pointer.set_platform(Some(platform));
        Ok(pointer)
    });
    let mut index = oci::ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(oci::MediaType::ImageIndex)
        .manifests(manifests.collect::<Result<Vec<_>, ImageError>>()?)
        .build()
        .map_err(ImageError::spec("index"))?;
    if !spec.annotations.is_empty() {
        index.set_annotations(Some(unordered(&spec.annotations)));
    }
    let index = canonical(&index, "index")?;
    Ok(Descriptor::new(descriptor::INDEX, store.put(&index)?, index.len() as u64))
}

fn configuration(spec: &ImageSpec) -> Result<oci::ImageConfiguration, ImageError> {
    let seconds = i64::try_from(spec.epoch).unwrap_or(i64::MAX);
    let created = jiff::Timestamp::from_second(seconds).map_err(ImageError::spec("time of creation"))?.to_string();
    let mut config = oci::Config::default();
    let given = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    config.set_entrypoint(given(&spec.entrypoint));
    config.set_cmd(given(&spec.cmd));
    config.set_env(given(&spec.env));
    config.set_user((!spec.user.is_empty()).then(|| spec.user.clone()));
    config.set_working_dir((!spec.working_dir.is_empty()).then(|| spec.working_dir.clone()));
    config.set_labels((!spec.labels.is_empty()).then(|| unordered(&spec.labels)));
    let rootfs = oci::RootFsBuilder::default()
        .typ("layers")
        .diff_ids(spec.layers.iter().map(|l| l.diff_id.to_string()).collect::<Vec<_>>())
        .build()
        .map_err(ImageError::spec("list of layers"))?;
    let history = |_: &Layer| {
        oci::HistoryBuilder::default()
            .created(created.clone())
            .created_by("plimsoll")
            .build()
            .map_err(ImageError::spec("history"))
    };
    oci::ImageConfigurationBuilder::default()
        .created(created.clone())
        .architecture(oci::Arch::from(spec.platform.architecture()))
        .os(oci::Os::Linux)
        .config(config)
        .rootfs(rootfs)
        .history(spec.layers.iter().map(history).collect::<Result<Vec<_>, _>>()?)
        .build()
        .map_err(ImageError::spec("configuration"))
}

fn pointer(to: &Descriptor) -> Result<oci::Descriptor, ImageError> {
    let digest: oci::Digest = to.digest.as_str().parse().map_err(ImageError::spec("digest"))?;
    Ok(oci::Descriptor::new(oci::MediaType::from(to.media_type.as_str()), to.size, digest))
}

fn unordered(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// JSON with sorted keys, whatever order the types or the JSON library keep.
pub(crate) fn canonical(value: &impl Serialize, part: &'static str) -> Result<Vec<u8>, ImageError> {
    let value = serde_json::to_value(value).map_err(ImageError::spec(part))?;
    serde_json::to_vec(&Sorted(&value)).map_err(ImageError::spec(part))
}

struct Sorted<'a>(&'a serde_json::Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            serde_json::Value::Object(map) => {
                serializer.collect_map(map.iter().map(|(k, v)| (k, Sorted(v))).collect::<BTreeMap<_, _>>())
            }
            serde_json::Value::Array(list) => serializer.collect_seq(list.iter().map(Sorted)),
            other => other.serialize(serializer),
        }
    }
}

/// One static executable as an image.
#[derive(Debug, Clone)]
pub struct ServiceImage<'a> {
    /// The service's name, and the executable's in `/bin`.
    pub name: &'a str,
    /// The executable on this machine.
    pub binary: &'a Path,
    /// What it runs on.
    pub platform: Platform,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The commit's time, in seconds since 1970.
    pub epoch: u64,
    /// What it is built on, in place of nothing.
    pub base: Option<Base>,
    /// How its own layers are stored.
    pub compression: Compression,
}

/// An image to build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    layers: Vec<Layer>,
    env: Vec<String>,
    user: String,
}

#[derive(Deserialize)]
struct BaseConfig {
    #[serde(default)]
    config: RunConfig,
    rootfs: BaseRootFs,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RunConfig {
    env: Option<Vec<String>>,
    user: Option<String>,
}

#[derive(Deserialize)]
struct BaseRootFs {
    diff_ids: Vec<Digest>,
}

impl Base {
    /// Reads the image of one platform out of a store, by the digest of its manifest.
    pub fn read(store: &BlobStore, manifest: &Digest) -> Result<Self, ImageError> {
        let view = ManifestView::parse(&store.read(manifest, MAX_MANIFEST)?).map_err(ImageError::spec("base"))?;
        let config = view.config.as_ref().ok_or(ImageError::Invalid { reason: "its base has no configuration" })?;
        let config: BaseConfig = serde_json::from_slice(&store.read(&config.digest, MAX_MANIFEST)?)
            .map_err(ImageError::spec("configuration of the base"))?;
        if config.rootfs.diff_ids.len() != view.layers.len() {
            return Err(ImageError::Invalid { reason: "its base has other layers than its configuration" });
        }
        let layers = view.layers.into_iter().zip(config.rootfs.diff_ids);
        let layers = layers.map(|(descriptor, diff_id)| Layer { descriptor, diff_id }).collect();
        let RunConfig { env, user } = config.config;
        Ok(Self { layers, env: env.unwrap_or_default(), user: user.unwrap_or_default() })
    }

    /// Whom its services run as, if that is somebody without rights of their own.
    fn user(&self) -> Option<&str> {
        let name = self.user.split(':').next().unwrap_or_default();
        (!["", "0", "root"].contains(&name)).then_some(&self.user)
    }
}

/// The user that services run as: no name of a person, no right to anything.
const NONROOT: u32 = 65_532;

/// Where programs of most distributions look for the certificates that they trust.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Mozilla's certificates, as PEM. They come with this version of Plimsoll and not from the machine, so that images of two
/// machines have the same.
fn certificates() -> Vec<u8> {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let encoded = STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text.into_bytes()
}

/// Writes a service's images for several platforms at the same time: compressing is most of the work, and each platform has
/// another executable. Gives them in the order they were asked for.
pub fn service_images(
    store: &BlobStore,
    services: &[ServiceImage<'_>],
) -> Result<Vec<(Platform, Descriptor)>, ImageError> {
    std::thread::scope(|scope| {
        let write = |service| scope.spawn(move || service_image(store, service));
        // As many threads as there are platforms, which are two.
        let writing: Vec<_> = services.iter().map(write).collect();
        let written = writing.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        services.iter().zip(written).map(|(service, image)| Ok((service.platform, image?))).collect()
    })
}

/// Writes an image with `/bin/<name>`, a user `nonroot`, the certificates that are trusted and a `/tmp`, and nothing else; or
/// one with `/bin/<name>` on what its base has.
///
/// The lower layer holds what no release changes, at a fixed time, so that all services and versions share it. On a base
/// services run as its user, unless that is root, and with its variables.
pub fn service_image(store: &BlobStore, service: &ServiceImage<'_>) -> Result<Descriptor, ImageError> {
    let passwd = format!("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/tmp:/sbin/nologin\n");
    let group = format!("root:x:0:\nnonroot:x:{NONROOT}:\n");
    let text = |path: &str, text: String| Entry::new(path, 0o644, Contents::Bytes(text.into_bytes()));
    let base = vec![
        text("etc/passwd", passwd),
        text("etc/group", group),
        Entry::new(CERTIFICATES, 0o644, Contents::Bytes(certificates())),
        Entry::new("tmp", 0o1777, Contents::Dir),
    ];
    let binary = Entry::new(format!("bin/{}", service.name), 0o755, Contents::File(service.binary.to_owned()));
    let mut layers = match &service.base {
        Some(base) => base.layers.clone(),
        None => vec![write_layer(store, base, 0, service.compression)?],
    };
    layers.push(write_layer(store, vec![binary], service.epoch, service.compression)?);
    let own = |variable: &str| variable.split('=').next().map(str::to_owned);
    let inherited = service.base.iter().flat_map(|base| &base.env);
    let inherited = inherited.filter(|kept| !service.env.iter().any(|set| own(set) == own(kept)));
    let env = inherited.chain(&service.env).cloned().collect();
    let user = service.base.as_ref().and_then(Base::user).map(str::to_owned);
    let spec = ImageSpec {
        platform: service.platform,
        entrypoint: vec![format!("/bin/{}", service.name)],
        cmd: service.cmd.clone(),
        env,
        working_dir: "/".to_owned(),
        user: user.unwrap_or_else(|| format!("{NONROOT}:{NONROOT}")),
        labels: service.labels.clone(),
        epoch: service.epoch,
        layers,
    };
    write_image(store, &spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(store: &BlobStore, dir: &Path, epoch: u64) -> Descriptor {
        let binary = dir.join("binary");
        std::fs::write(&binary, b"not really").unwrap();
        let labels = (0..20).map(|n| (format!("label{n}"), n.to_string())).collect();
        let service = ServiceImage {
            name: "api",
            binary: &binary,
            platform: Platform::LinuxAmd64,
            cmd: vec![],
            env: vec!["A=1".to_owned()],
            labels,
            epoch,
            base: None,
            compression: Compression::Gzip,
        };
        service_image(store, &service).unwrap()
    }

    #[test]
    fn the_same_image_gets_the_same_digest_and_shares_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let one = image(&store, dir.path(), 1_700_000_000);
        // Twice: labels come out of a map whose order differs from one to the next.
        assert_eq!(image(&store, dir.path(), 1_700_000_000), one);
        let other = image(&store, dir.path(), 1_700_000_001);
        assert_ne!(other, one);
        let base = |d: &Descriptor| {
            ManifestView::parse(&store.read(&d.digest, 9999).unwrap()).unwrap().layers[0].digest.clone()
        };
        assert_eq!(base(&other), base(&one));
    }

    #[test]
    fn the_configuration_says_who_runs_what() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let manifest = store.read(&image(&store, dir.path(), 0).digest, 9999).unwrap();
        let view = ManifestView::parse(&manifest).unwrap();
        let config = store.read(&view.config.unwrap().digest, 9999).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["created"], "1970-01-01T00:00:00Z");
        assert_eq!(config["architecture"], "amd64");
        assert_eq!(config["config"]["Entrypoint"][0], "/bin/api");
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Labels"]["label7"], "7");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_base_brings_its_layers_its_variables_and_its_user_unless_that_is_root() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let binary = dir.path().join("binary");
        std::fs::write(&binary, b"web").unwrap();
        let check = |user: &str, expected: &str| {
            let os = Entry::new("etc/os-release", 0o644, Contents::Bytes(b"ID=base\n".to_vec()));
            let base = ImageSpec {
                platform: Platform::LinuxAmd64,
                entrypoint: vec!["/bin/sh".into()],
                cmd: Vec::new(),
                env: vec!["A=base".into(), "B=base".into()],
                working_dir: String::new(),
                user: user.into(),
                labels: BTreeMap::new(),
                epoch: 0,
                layers: vec![write_layer(&store, vec![os], 0, Compression::Zstd).unwrap()],
            };
            let base = write_image(&store, &base).unwrap();
            let service = ServiceImage {
                name: "web",
                binary: &binary,
                platform: Platform::LinuxAmd64,
                cmd: Vec::new(),
                env: vec!["A=own".into()],
                labels: BTreeMap::new(),
                epoch: 7,
                base: Some(Base::read(&store, &base.digest).unwrap()),
                compression: Compression::Zstd,
            };
            let image = service_image(&store, &service).unwrap();
            let target = dir.path().join(format!("root-{expected}"));
            let rootfs = crate::unpack(&store, &image.digest, &target, crate::UnpackLimits::default()).unwrap();
            assert_eq!(
                (rootfs.user.as_str(), &rootfs.env[..]),
                (expected, &["B=base".to_owned(), "A=own".to_owned()][..])
            );
            assert_eq!(rootfs.entrypoint, ["/bin/web"]);
            assert_eq!(std::fs::read(target.join("bin/web")).unwrap(), b"web");
            assert_eq!(std::fs::read(target.join("etc/os-release")).unwrap(), b"ID=base\n");
        };
        check("", "65532:65532");
        check("root", "65532:65532");
        check("1000", "1000");
    }

    #[test]
    fn the_certificates_are_some_and_read_as_such() {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let pem = certificates();
        let read: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, webpki_root_certs::TLS_SERVER_ROOT_CERTS);
        assert!(read.len() > 100, "{}", read.len());
    }

    #[test]
    fn an_index_lists_each_platform_once_in_a_fixed_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let d = image(&store, dir.path(), 0);
        let write = |images| write_index(&store, &IndexSpec { images, annotations: BTreeMap::new() });
        let (amd, arm) = ((Platform::LinuxAmd64, d.clone()), (Platform::LinuxArm64, d));
        let index = write(vec![amd.clone(), arm.clone()]).unwrap();
        assert_eq!(write(vec![arm, amd.clone()]).unwrap(), index);
        let view = ManifestView::parse(&store.read(&index.digest, 9999).unwrap()).unwrap();
        assert!(view.is_index() && view.manifests[0].platform.as_ref().unwrap().is(Platform::LinuxAmd64));
        assert!(write(vec![amd.clone(), amd]).is_err());
    }
}
