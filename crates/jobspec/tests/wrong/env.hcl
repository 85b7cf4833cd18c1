job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
      env {
        A = [1]
        B = "x"
      }
    }
  }
}
