job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
        volumes = ["/data", "/a:/b:rshared", "/a:../b", "/a:/x", "/b:/x/", "../x:/y", 7]
      }
    }
  }
}
