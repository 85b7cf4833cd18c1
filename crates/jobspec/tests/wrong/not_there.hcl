job "web" {
  type = "system"
  group "web" {
    volume "data" {
      type = "host"
    }
    vault {
    }
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
      artifact {
        source = "https://example.org/x"
      }
    }
  }
}
