//! Whether a model fits the devices of this host.

use std::sync::Arc;

use api_types::{ErrorEnvelope, ErrorKind, FitDevice, FitQuery, FitReport};
use catalog_core::files::fit::{self, Need};
use catalog_core::files::safetensors::Config;
use catalog_core::files::{self, Header, HeaderError, HeaderReader, ModelInfo, ModelShape, Progress};
use catalog_core::{FetchContext, ModelRef};
use model_provisioner::Peek;
use pool_managerd::devices::Device;
use tokio_util::sync::CancellationToken;

use super::work::failed;
use crate::app::App;
use crate::narrate;
use crate::wire::long;

/// Context that is looked at when neither the question nor a shorter model says another.
const USUAL_CTX: u32 = 8192;

impl App {
    /// What a model needs and which devices have it. Of a model that is not here only the header is fetched.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, `NOT_FOUND`, `UNTRUSTED_ARTIFACT` when the outbound policy does not let the header be fetched.
    pub async fn fit(self: &Arc<Self>, query: FitQuery) -> Result<FitReport, ErrorEnvelope> {
        let model: ModelRef = query
            .model_ref
            .parse()
            .map_err(|error| ErrorEnvelope::new(ErrorKind::InvalidParams, format!("model_ref: {error}")))?;
        let ModelInfo { facts, shape } = self.header(&model).await?;
        let shape = shape.ok_or_else(|| {
            let message = format!("the header of {model} does not say enough to judge the memory it takes");
            ErrorEnvelope::new(ErrorKind::InvalidParams, message)
        })?;
        let longest = facts.ctx_max.and_then(|ctx| u32::try_from(ctx).ok()).unwrap_or(USUAL_CTX);
        let ctx = query.ctx.unwrap_or_else(|| longest.min(USUAL_CTX));
        let slots = query.slots.unwrap_or(1);
        if ctx == 0 || slots == 0 {
            return Err(ErrorEnvelope::new(ErrorKind::InvalidParams, "ctx and slots are numbers from 1 on"));
        }
        let need = fit::need(&shape, ctx, slots);
        let app = Arc::clone(self);
        let (devices, no_devices) = match tokio::task::spawn_blocking(move || app.manager.devices()).await {
            Ok(found) => match found.as_ref() {
                Ok(found) => (found.devices.iter().map(|device| judged(device, &shape, &need, slots)).collect(), None),
                Err(absent) => (Vec::new(), Some(absent.to_string())),
            },
            Err(_) => (Vec::new(), Some("looking for devices panicked; the log says where".to_owned())),
        };
        Ok(FitReport {
            model_id: model.id().to_string(),
            facts,
            ctx: ctx.into(),
            slots: slots.into(),
            weights_bytes: long(need.weights_bytes),
            kv_bytes: long(need.kv_bytes),
            compute_bytes: long(need.compute_bytes),
            overhead_bytes: long(need.overhead_bytes),
            total_bytes: long(need.total()),
            devices,
            no_devices,
        })
    }

    async fn header(&self, model: &ModelRef) -> Result<ModelInfo, ErrorEnvelope> {
        self.models.may_read(model, &self.config)?;
        let asked = model.clone();
        if let Some(found) = self.models.with_store(move |store| store.locate(&asked)).await? {
            let read = tokio::task::spawn_blocking(move || files::read_local(&found.local_path)).await;
            let read = read.map_err(|_| ErrorEnvelope::new(ErrorKind::Internal, "reading the file panicked"))?;
            return read.map_err(|error| ErrorEnvelope::new(ErrorKind::InvalidParams, narrate::with_causes(&error)));
        }
        if model.is_local() {
            let message = format!("{model} is not on the server; files are looked for below catalog.models_dir");
            return Err(ErrorEnvelope::new(ErrorKind::NotFound, message));
        }
        let configured = self.models.is_configured(&model.id());
        self.peek(model, configured).await
    }

    /// Reads the header of a model that is not here.
    async fn peek(&self, model: &ModelRef, configured: bool) -> Result<ModelInfo, ErrorEnvelope> {
        let context = FetchContext { progress: Arc::new(Unwatched), cancel: CancellationToken::new(), configured };
        let mut reader = HeaderReader::default();
        let (mut fed, mut outcome) = (0, None);
        let mut read = |bytes: &[u8]| match reader.feed(&bytes[fed..]) {
            Ok(Progress::NeedMore(more)) => {
                fed = bytes.len();
                Peek::More(bytes.len().saturating_add(usize::try_from(more).unwrap_or(usize::MAX)))
            }
            Ok(Progress::Done(header)) => {
                outcome = Some(Ok(header));
                Peek::Done
            }
            Err(error) => {
                outcome = Some(Err(error));
                Peek::Done
            }
        };
        let peeked = self.models.fetcher.peek(model, &context, &mut read).await.map_err(|error| failed(&error))?;
        let unfit = |error: HeaderError| {
            ErrorEnvelope::new(ErrorKind::InvalidParams, format!("{} of {model}: {error}", peeked.file))
        };
        let info = match outcome.unwrap_or(Err(HeaderError::Truncated)).map_err(unfit)? {
            Header::Gguf(header) => ModelInfo::of_gguf(&[*header], peeked.weights_bytes),
            Header::Safetensors(header) => {
                let config = self.models.fetcher.read_small(model, &context, "config.json").await;
                let config = config.map_err(|error| failed(&error))?;
                let config = config.map(|json| Config::parse(&json)).transpose().map_err(unfit)?;
                ModelInfo::of_safetensors(&[header], config.as_ref(), None, false)
            }
        };
        let mut info = info.map_err(unfit)?;
        // Further parts hold weights, too.
        let parts_bytes = peeked.weights_bytes.filter(|_| peeked.weights_bytes != peeked.file_bytes);
        if let (Some(shape), Some(bytes)) = (&mut info.shape, parts_bytes) {
            shape.weights_bytes = shape.weights_bytes.max(bytes);
        }
        Ok(info)
    }
}

/// Nobody waits for a bar.
struct Unwatched;

impl catalog_core::Progress for Unwatched {
    fn planned(&self, _files: usize, _bytes: Option<u64>) {}
    fn advanced(&self, _bytes: u64) {}
    fn lost(&self, _bytes: u64) {}
    fn file_done(&self, _name: &str) {}
}

fn judged(device: &Device, shape: &ModelShape, need: &Need, slots: u32) -> FitDevice {
    FitDevice {
        index: device.index,
        name: device.name.clone(),
        vram_total_bytes: long(device.vram_total_bytes),
        vram_free_bytes: long(device.vram_free_bytes),
        fits: need.total() <= device.vram_total_bytes,
        fits_now: need.total() <= device.vram_free_bytes,
        ctx_max: fit::ctx_max(shape, slots, device.vram_total_bytes).map(i64::from),
    }
}
