# A dead-man switch: a valve that nobody can order to close any more is closed by the node itself.
job "valve" {
  type = "system"

  constraint {
    attribute = "${meta.valve}"
    value     = "yes"
  }

  group "valve" {
    # The group stops after an hour without a word from the server, and starts again on the next contact.
    disconnect {
      stop_on_client_after = "1h"
    }

    task "control" {
      driver      = "docker"
      kill_signal = "SIGTERM"

      # Time to drive the valve shut.
      kill_timeout = "45s"

      config {
        image = "valve-control:1.9"

        devices = [
          {
            host_path          = "/dev/gpiochip0"
            cgroup_permissions = "rw"
          },
        ]
      }
    }
  }
}
