//! `mock-engine` on GPUs that are not there.

use fake_nvml::claims::free_in;
use fake_nvml::{Driver, FakeNvml, Gpu, Mig, State};
use sample_gguf::Sample;
use tempfile::TempDir;

use crate::program::{Engine, ended, masked, model, said};

const GIB: u64 = 1 << 30;

fn fake() -> (TempDir, FakeNvml) {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = FakeNvml::new(folder.path()).expect("fake GPUs");
    (folder, fake)
}

fn free(fake: &FakeNvml) -> Vec<u64> {
    let state = fake.state().expect("a state");
    state.devices.iter().map(|gpu| free_in(&fake.state_path(), &gpu.uuid).expect("it answers")).collect()
}

/// A model takes the size of its file and something for its context, where the mask lets it, and gives it back when it ends.
#[test]
fn a_model_takes_memory() {
    let (folder, fake) = fake();
    let before = free(&fake);
    let file = model(folder.path(), 3 * GIB);
    let args = ["--model", file.to_str().expect("text"), "-c", "8192", "--port", "0"];
    let mut engine = Engine::start(&args, &masked(&fake, "1"));
    let log = engine.until_said("server is listening");
    for line in [
        "found 1 CUDA devices:\n  Device 0: NVIDIA GeForce RTX 3060, compute",
        "CUDA0 model buffer size =  3072.00 MiB",
        "CUDA0 KV buffer size =  1024.00 MiB",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(free(&fake), [before[0], before[1] - 4 * GIB]);
    drop(engine);
    assert_eq!(free(&fake), before);
    let uuids: Vec<_> = fake.state().expect("a state").devices.into_iter().map(|gpu| gpu.uuid).collect();
    let split = [&args[..], &["--tensor-split", "1,3"]].concat();
    let mut engine = Engine::start(&split, &masked(&fake, &format!("{},{}", uuids[1], uuids[0])));
    engine.until_said("server is listening");
    assert_eq!(free(&fake), [before[0] - 3 * GIB, before[1] - GIB]);
}

/// What does not fit ends the engine as llama.cpp ends, and it leaves nothing behind.
#[test]
fn what_does_not_fit_is_refused() {
    let (folder, fake) = fake();
    let before = free(&fake);
    let file = model(folder.path(), 13 * GIB);
    let args = ["--model", file.to_str().expect("text"), "--port", "0"];
    let output = ended(&args, &masked(&fake, "1"));
    assert_eq!(output.status.code(), Some(1));
    for line in [
        "\nggml_backend_cuda_buffer_type_alloc_buffer: allocating 13312.00 MiB on device 0: cudaMalloc failed: out of memory\n",
        "\nllama_model_load: error loading model: unable to allocate CUDA0 buffer\n",
    ] {
        assert!(said(&output).contains(line), "{line}: {}", said(&output));
    }
    assert_eq!(free(&fake), before);
    let output = ended(&["--port", "0", "-c", "131072"], &masked(&fake, "1"));
    assert!(said(&output).contains("failed to allocate buffer for kv cache"), "{}", said(&output));
    assert_eq!(free(&fake), before);
}

/// CUDA's own memory comes first and on each GPU that is seen, buffers to compute in come last; whichever does not fit is named and
/// noted, and nothing is left.
#[test]
fn memory_may_be_short_at_either_end() {
    let (folder, fake) = fake();
    let uuid = fake.state().expect("a state").devices[1].uuid.clone();
    let file = folder.path().join("llama.gguf");
    Sample::named("llama-3.1-8b").write(&file).expect("a file with a hole");
    let args = ["-m", file.to_str().expect("text"), "-c", "2048", "--cuda-mb", "400", "--port", "0"];
    // 4403 MiB of weights, 256 of keys and values, 126 to compute in.
    let wanted = (400 << 20) + 4_912_916_000 - 295_501_824 + (382 << 20);
    for (room, said_so) in [
        (300 << 20, "\nCUDA error: out of memory\n  current device: 0"),
        (wanted - (10 << 20), "failed to allocate compute pp buffers"),
    ] {
        let refused = fake.refused().len();
        fake.foreign(4_000_000, &uuid, (12 << 30) - room).expect("it answers");
        let output = ended(&args, &masked(&fake, "1"));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(said_so), "{said_so}: {}", said(&output));
        assert_eq!((free(&fake)[1], fake.refused().len()), (room, refused + 1));
        fake.foreign_returns(4_000_000, &uuid, u64::MAX).expect("it answers");
    }
    fake.foreign(4_000_000, &uuid, (12 << 30) - wanted).expect("it answers");
    let mut engine = Engine::start(&args, &masked(&fake, "0,1"));
    let log = engine.until_said("server is listening");
    assert!(log.contains("CUDA1 compute buffer size =   126.00 MiB"), "{log}");
    let mut alone = Engine::start(&[&args[..], &["-sm", "none"]].concat(), &masked(&fake, "0,1"));
    let log = alone.until_said("server is listening");
    assert!(!log.contains("CUDA1 compute"), "{log}");
    let of_alone = fake.processes(&uuid).into_iter().find(|process| process.pid == alone.pid());
    assert_eq!(of_alone.and_then(|process| process.bytes), Some(400 << 20), "CUDA is there all the same");
}

/// Without a GPU that it may use, a build for CUDA does not run.
#[test]
fn no_gpu_no_engine() {
    let (_folder, fake) = fake();
    let none = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected\n";
    for mask in ["", "-1", "7", "GPU-other,0"] {
        let output = ended(&[], &masked(&fake, mask));
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(1), none), "{mask}");
    }
    fake.update(|state| state.driver = Driver::Lost);
    let output = ended(&[], &masked(&fake, "0"));
    assert_eq!((output.status.code(), said(&output).ends_with("CUDA: unknown error\n")), (Some(1), true));
}

/// LO-POOL-08: an instance is used like a GPU of its own.
#[test]
fn an_instance_is_a_gpu() {
    let folder = tempfile::tempdir().expect("a folder");
    let mig = Mig { uuid: "MIG-a".to_owned(), total_bytes: 10 * GIB, used_bytes: 0 };
    let split = Gpu { mig: Some(vec![mig]), ..Gpu::new("NVIDIA A100", "GPU-a100", (8, 0), 80 * GIB) };
    let fake = FakeNvml::with(folder.path(), &State::of(vec![split])).expect("fake GPUs");
    let mut engine = Engine::start(&["--vram-mb", "4096", "--port", "0"], &masked(&fake, "MIG-a"));
    engine.until_said("server is listening");
    assert_eq!(free_in(&fake.state_path(), "MIG-a").expect("it answers"), 6 * GIB);
    let output = ended(&["--vram-mb", "7168", "--port", "0"], &masked(&fake, "MIG-a"));
    assert!(said(&output).contains("cudaMalloc failed"), "{}", said(&output));
}
