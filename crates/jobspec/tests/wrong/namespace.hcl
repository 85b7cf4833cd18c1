job "web" {
  namespace = "team"
  region = "eu"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
