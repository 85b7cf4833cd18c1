job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
        network_mode = "host"
        entrypoint = []
        work_dir = "srv"
        privileged = true
        cap_add = ["NET_ADMIN", "CAP_SYS_TIME", "net_admn"]
        cap_drop = ["net_admin"]
        devices = [
          { host_path = "video0" },
          { host_path = "/dev/ttyUSB0", cgroup_permissions = "rx" },
          { host_path = "/dev/ttyUSB0", container = "/dev/x" },
          "/dev/x",
        ]
      }
    }
    task "b" {
      driver = "docker"
      config {
        image   = "web:1"
        devices = "/dev/x"
        entrypoint = "/bin/sh"
        command = "${NOMAD_TASK_DIR}/run"
        work_dir = "/${NOMAD_TASK_NAME}"
      }
    }
  }
}
