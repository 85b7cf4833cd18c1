job "docker-prune" {
  type        = "sysbatch"
  datacenters = ["*"]

  periodic {
    cron             = "15 4 * * SUN"
    prohibit_overlap = true
    time_zone        = "Europe/Paris"
  }

  group "prune" {
    task "prune" {
      driver = "raw_exec"

      config {
        command = "/usr/bin/docker"
        args    = ["image", "prune", "--all", "--force"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
