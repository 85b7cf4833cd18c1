job "web" {
  type = "sysbatch"
  periodic {
    prohibit_overlap = "perhaps"
  }
  periodic {
    cron  = "0 1 * * *"
  }
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
