# A program of the node, on every node: as an ordinary user, bounded by a control group. The node's policy must allow exec.
job "watchdog" {
  type = "system"

  group "watchdog" {
    task "watchdog" {
      driver = "exec"
      user   = "daemon"

      config {
        command  = "/usr/bin/python3"
        args     = ["local/watchdog.py", "--node", "${node.unique.name}"]
        work_dir = "local"
      }

      template {
        destination = "local/watchdog.py"
        perms       = "0755"

        data = <<-EOT
          import sys, time
          while True:
              print("alive on", sys.argv[2], flush=True)
              time.sleep(60)
        EOT
      }

      restart {
        attempts = 5
        interval = "10m"
        delay    = "5s"
      }

      resources {
        cpu    = 20
        memory = 32
      }
    }
  }
}
