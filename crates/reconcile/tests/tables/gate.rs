//! Jobs of several groups: their versions switch as a whole.

use skerry_wire::job::{Device, Driver, Group, Job, JobType};
use skerry_wire::{Digest, ImageId};

use crate::bed::{Bed, docker};

/// A job's new version switches with all of its groups on the node, or not at all.
#[test]
fn an_image_that_one_group_lacks_holds_all_groups_of_the_job_up() {
    let spec = |n: &str, image: u8| {
        let group = |name: &str, image: u8| {
            let mut task = docker(name);
            task.env.insert("VERSION".into(), n.into());
            let Driver::Docker(config) = &mut task.driver else { unreachable!() };
            config.image_id = Some(ImageId(Digest::new([image; 32])));
            Group::new(name, vec![task])
        };
        Job::new("till", JobType::Service, vec![group("a", 1), group("b", image), group("c", 1)])
    };
    let mut bed = Bed::with(spec("1", 1));
    bed.submit(spec("2", 2));
    bed.pass(60_000);
    let versions = |bed: &Bed| -> Vec<u64> { bed.memory.slots.values().filter_map(|m| Some(m.current.as_ref()?.version)).collect() };
    assert_eq!((versions(&bed), bed.running().len()), (vec![1, 1, 1], 3));
    for alloc in bed.manifest.allocs.clone() {
        assert_eq!(bed.told(alloc.id).reason, "waits for app:1");
    }
    bed.images.insert(ImageId(Digest::new([2; 32])));
    bed.rest();
    assert_eq!((versions(&bed), bed.running().len()), (vec![2, 2, 2], 3));
}

#[test]
fn a_group_that_came_later_and_is_refused_says_nothing_of_one_that_runs() {
    let mut second = docker("b");
    let Driver::Docker(config) = &mut second.driver else { unreachable!() };
    config.devices.push(Device { host_path: "/dev/gone".into(), container_path: None, cgroup_permissions: "r".into() });
    let spec = Job::new("till", JobType::Service, vec![Group::new("a", vec![docker("a")]), Group::new("b", vec![second])]);
    let mut bed = Bed::new();
    bed.policy.devices.push("/dev/gone".into());
    let first = bed.submit(spec);
    let later = bed.manifest.allocs.pop().expect("two groups");
    bed.rest();
    bed.manifest.allocs.push(later.clone());
    bed.rest();
    assert_eq!((bed.told(first).reason.as_str(), bed.running()), ("all tasks run", vec!["a".to_owned()]));
    assert!(bed.told(later.id).reason.contains("/dev/gone is not on the node"), "{}", bed.told(later.id).reason);
}
