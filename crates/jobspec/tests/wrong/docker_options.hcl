job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
        privileged = true
        network_mode = "host"
        entrypoint = ["/x"]
      }
    }
  }
}
