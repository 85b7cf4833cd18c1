job "web" {
  meta = { "größe" = "äöü", x = größe }
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
