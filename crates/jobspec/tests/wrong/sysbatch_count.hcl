job "sync" {
  type = "sysbatch"
  group "a" {
    count = 0
    max_run_duration = "10ms"
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
  group "b" {
    count = 3
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
