job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
      resources {
        cpu = 0
        memory = 200
        memory_max = 100
      }
    }
  }
}
