job "link-watchdog" {
  type        = "system"
  datacenters = ["edge-*"]

  group "watchdog" {
    disconnect {
      stop_on_client_after = "2h"
    }

    task "watchdog" {
      driver = "raw_exec"
      user   = "root"

      config {
        command = "/bin/sh"
        args    = ["-c", "while true; do ping -c1 10.8.0.1 || /usr/sbin/reboot-modem; sleep 60; done"]
      }

      kill_signal = "SIGKILL"
    }
  }
}
