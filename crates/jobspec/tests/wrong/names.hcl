job "web/1" {
  node_pool = "my pool"
  datacenters = ["ok", "no/good"]
  group "web" {
    task "-server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
