job "web" {
  type = "system"
  type = "service"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
