# A command for the whole fleet: once on every node, as root, with a result for each. Nodes that are away run it when they are back.
job "rotate-logs" {
  type     = "sysbatch"
  priority = 80

  group "rotate" {
    max_run_duration = "5m"

    restart {
      attempts = 0
      mode     = "fail"
    }

    task "rotate" {
      driver = "raw_exec"

      config {
        command = "/usr/sbin/logrotate"
        args    = ["--force", "/etc/logrotate.conf"]
      }

      logs {
        max_files = 1
      }
    }
  }
}
