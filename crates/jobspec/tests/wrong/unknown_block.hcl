job "web" {
  type = "system"
  grup "web" {
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
