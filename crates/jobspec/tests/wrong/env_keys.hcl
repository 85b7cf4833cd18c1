job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
      env = {
        "A B" = "x"
        ""    = "y"
        C     = { d = 1 }
      }
    }
  }
}
